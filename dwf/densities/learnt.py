"""The base of densities that train a network: units, conditions, architectures, metric, files.

A kind gives its task, what the network is asked to learn, and how it draws. Within, all codes are
vectors: of a sequence, the numbers that stand for weights, token after token.

With `autoguidance` the network as it was early in its training, its younger self, is kept too, and
samples are led away from what it says.

Shape suffixes: N codes, B codes of a chunk, K numbers of a code, P numbers of all conditions, A
architectures.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from dwf.backbones.linear import kernel_of, use_kernel
from dwf.codecs.codes import Codes, CodeShape, Judge
from dwf.codecs.stored import FOLDER
from dwf.densities.answers import Ask
from dwf.densities.asked import Asked, Guidance, Wanted
from dwf.densities.base_config import LearntSettings
from dwf.densities.conditions import Conditions, Told
from dwf.densities.density import Density, Setting
from dwf.densities.examples import Examples, Learnable, StoredExamples
from dwf.densities.needs import Needs
from dwf.densities.pairing import PairedSections
from dwf.densities.paths import PathTask
from dwf.densities.scaling import Scaling, check_codes, vectors
from dwf.densities.solver import Watch, draw_noise
from dwf.densities.solver_config import SolverSettings
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.randomness import seed_of, seeded
from dwf.ranks import world
from dwf.room import within_memory
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict
from dwf.training.forecast import refuse_no_room
from dwf.training.loop import Outcome, train
from dwf.training.task import refuse_few

CHUNK_NUMBERS = 2**24
"""Numbers of the codes, or of a backbone's widest layer, that are worked on at once."""
# Of sequences on a CPU, numbers of the backbone's widest layer: more leave its caches, and take
# half as long again for each sample.
_CACHED_NUMBERS = 2**21


class LearntDensity(Density):
    """Base of densities that train a network; a kind gives `learns`, `draw` and `log_prob`.

    Args:
        config: its settings.
    """

    settings: ClassVar[type[LearntSettings]]
    """Class of its settings."""
    learns: ClassVar[type[PathTask]]
    """Class of its task."""
    config: LearntSettings
    module: nn.Module
    younger: nn.Module | None = None
    """The network when it had learnt less, of `autoguidance`; None until it is trained."""

    def __init__(self, config: LearntSettings):
        super().__init__(config)
        self.device = find_device(config.training.compute.device)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The network and, where it is kept, its younger self."""
        return tuple(filter(None, (self.module, self.younger)))

    def task(
        self, train: Learnable, val: Learnable, *, seed: int, metric: Sequence[torch.Tensor]
    ) -> PathTask:
        """Return what `module` is asked to learn.

        Args:
            train: codes to learn from.
            val: held-out codes; may be empty.
            seed: of noise that is drawn once, and of validation.
            metric: of each of `sections`, what the errors of a token count, [C, C]; or nothing.
        """
        return self.learns(
            self.config,
            self.module,
            train=train,
            val=val,
            seed=seed,
            sections=self.sections,
            metric=metric,
        )

    def draw(
        self,
        noise_BK: torch.Tensor,
        solver: SolverSettings,
        *,
        seed: int,
        first: int,
        condition_BP: torch.Tensor | None = None,
        guidance: float | tuple[float, ...] = 1.0,
        autoguidance: float = 1.0,
        present_BK: torch.Tensor | None = None,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        """Return standardised codes made of standard normal noise, [B, K].

        Args:
            noise_BK: on the device, 0 where an architecture has no number.
            solver: how.
            seed: of chance on the way, a stream for each sample.
            first: number of the first sample.
            condition_BP: standardised conditions, or those of all, [1, P]; None: none.
            guidance: how strongly, see `guidance.guided`; 1: as learnt.
            autoguidance: see `answer`; 1: as learnt.
            present_BK: which numbers codes have, [1, K]; None: all.
            watch: is shown each point on the way: (share of the way done, x_BK).
        """
        raise NotImplementedError

    def answer(
        self,
        x_BK: torch.Tensor,
        t_B: torch.Tensor,
        *,
        autoguidance: float = 1.0,
        **told: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return what the network answers at points, led away from its younger self's answer.

        Source: Karras et al., arXiv 2406.02507, eq. 3.

        Args:
            x_BK: points.
            t_B: their times, or, of shape [1], the one time of all.
            autoguidance: w in younger + w (network - younger); 1: the network's own.
            told: conditions and masks, see `TokenBackbone.forward`; None: none.
        """
        told = {name: value for name, value in told.items() if value is not None}
        own_BK = self.module(x_BK, t_B, **told)
        if autoguidance == 1:
            return own_BK
        return torch.lerp(self.younger(x_BK, t_B, **told), own_BK, autoguidance)

    def fit(
        self,
        train_codes: Codes,
        val_codes: Codes,
        *,
        run: RunFolder,
        seed: int = 0,
        train_conditions: Told | None = None,
        val_conditions: Told | None = None,
        metric: Sequence[torch.Tensor] = (),
        judge: Judge | None = None,
        ask: Ask | None = None,
    ) -> Outcome:
        """Train the network, or go on where the run stopped.

        Args:
            train_codes: to learn from, vectors [N, K] or sequences [N, T, C].
            val_codes: held-out ones, for validation; may be empty.
            run: takes checkpoints and metrics; of this density alone.
            seed: of initialisation, batches and noise.
            train_conditions: what `condition` names of each training network, as the zoo has it;
                a number that is not finite, or an empty word, stands for none.
            val_conditions: the same of the held-out networks; None: they have none.
            metric: with `behaviour`, of each section of tokens what their errors count, [C, C]; see
                `generators/sensitivity.py`.
            judge: with `training.sample_every`, what scores codes drawn in training.
            ask: with `answers`, what asks the networks that codes stand for.

        Raises:
            TooFewNetworks: fewer training codes than the batch size.
            TooLarge: see `forecast.refuse_no_room`.
            ShapeMismatch: the codes are not of one shape; see `scaling.check_codes`.
            ConfigError: the backbone takes sequences and the codes are vectors, or the reverse; or
                there is a condition, or `behaviour`, and nothing to learn it from.
            TrainingDiverged: the loss is not finite.
        """
        check_codes(val_codes, train_codes.shape)
        refuse_few(len(train_codes), self.config.training.batch_size)
        scaling = Scaling.fit(train_codes, self.config.standardise)
        conditions = None
        if self.config.takes_condition:
            conditions = Conditions.fit(self.config.conditions, train_conditions)
        self.prepare(train_codes.shape, scaling, seed=seed, conditions=conditions)
        needs = Needs.of(self.config, train_codes.shape, ranks=world().size)
        refuse_no_room(self.module, self.config.training, **vars(needs))
        task = self.task(
            self.examples(train_codes, train_conditions, folder=run.path / FOLDER),
            self.examples(val_codes, val_conditions),
            seed=seed,
            metric=self._metric(metric),
        )
        if ask is not None:
            task.ask = lambda codes_RK, places_M: ask(self.scaling.undo(codes_RK), places_M)
        look = partial(self._look, judge, seed) if judge else None
        outcome = train(
            task, self.config.training, seed=seed, run=run, what=self.config.kind, look=look
        )
        self.module = task.module  # an engine may have made another, for the first rank alone
        self._take_younger(task.early)
        return outcome

    def led(self, autoguidance: float, done: float | torch.Tensor) -> float:
        """Return the weight of autoguidance at a share of the way done; before `since` it is 1."""
        is_led = autoguidance != 1 and done >= self.config.autoguidance.since
        return autoguidance if is_led else 1.0

    def _take_younger(self, state: dict[str, torch.Tensor] | None) -> None:
        if state is not None:
            self.younger = copy.deepcopy(self.module)
            self.younger.load_state_dict(state)

    def _look(self, judge: Judge, seed: int, module: nn.Module) -> dict[str, float]:
        """Return what the judge says of codes drawn with the network as it is now.

        From the same noise at each look; where none is learnt without conditions, of typical ones.
        """
        condition = None
        if self.conditions is not None and not self.config.drop_condition:
            condition = self.conditions.typical
        trained, self.module = self.module, module
        try:
            count = self.config.training.sample_count
            return judge(self.sample(count, seed_of(seed, "look"), condition=condition))
        finally:
            self.module = trained

    def prepare(
        self, shape: CodeShape, scaling: Scaling, *, seed: int, conditions: Conditions | None = None
    ) -> None:
        """Build the network and all that `fit` learns before it trains.

        Args:
            shape: of the codes.
            scaling: to the units in which the network learns.
            seed: of its initialisation.
            conditions: what it is told; None: nothing.

        Raises:
            ConfigError: the backbone is not for such codes.
        """
        backbone = self.config.backbone
        if shape.is_mixed and not backbone.takes_masks:
            raise ConfigError(
                f"backbone.kind = '{backbone.kind}' takes no masks, and the codes are of "
                f"{len(shape.layouts)} architectures: choose the backbone transformer or "
                "neural_graph, or learn from one zoo"
            )
        self.shape = shape
        self.scaling, self.conditions = scaling.to(self.device), conditions
        with seeded(seed, "initialisation"):
            told = conditions.sizes if conditions else ()
            module = within_memory(
                lambda: self.config.build_network(shape, told=told),
                backbone,
                key="density.backbone",
            )
        self.module = module.to(self.device).eval()
        present_AK = shape.present_AK
        self.present_AK = None if present_AK is None else present_AK.to(self.device)

    def examples(self, codes: Codes, told: Told | None, *, folder: Path | None = None) -> Learnable:
        """Return codes on the device, standardised, with what is known of them.

        Codes that are mapped stay on the disk, to be read batch by batch.

        Args:
            codes: in the shape of the training codes.
            told: conditions as the zoo has them; None: of none.
            folder: for what is as large as mapped codes; None where nothing is learnt from them.
        """
        condition_NP, kind_N, sizes = None, None, ()
        if self.conditions is not None:
            condition_NP = self.conditions.encode(told, len(codes)).to(self.device)
            sizes = self.conditions.sizes
        if codes.kind_N is not None:
            kind_N = codes.kind_N.to(self.device)
        known = Examples(
            torch.empty(len(codes), 0, device=self.device),
            condition_NP,
            kind_N=kind_N,
            present_AK=self.present_AK,
            sizes=sizes,
        )
        if codes.is_mapped:
            return StoredExamples(codes, self.scaling, known=known, folder=folder)
        numbers_NK = vectors(codes).to(self.device)
        return replace(known, codes_NK=self.scaling.apply(numbers_NK, known.present_NK))

    @property
    def sections(self) -> PairedSections:
        """Sections of tokens, and which are exchangeable to the network; none of vectors."""
        if self.shape.sections is None:
            return ()
        are_free = self.config.backbone.exchangeable(self.shape.sections)
        pairs = zip(self.shape.sections, are_free, strict=True)
        return [(count, size, is_free) for (count, size), is_free in pairs]

    def _metric(self, metric: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return it on the device, if it is wanted."""
        if not self.config.takes_metric:
            return []
        sizes = [size for _, size in self.shape.sections]
        if [tuple(part.shape) for part in metric] != [(size, size) for size in sizes]:
            raise ConfigError(
                f"density.behaviour = {self.config.behaviour:g}: {len(metric)} metrics of shapes "
                f"{[tuple(part.shape) for part in metric]}, for tokens of {sizes} numbers: give "
                "`fit` what generators.sensitivity.measure_sensitivity returns"
            )
        return [part.to(self.device) for part in metric]

    @torch.no_grad()
    def sample(
        self,
        count: int,
        seed: int,
        *,
        first: int = 0,
        chunk: int | None = None,
        watch: Watch | None = None,
        condition: Wanted = None,
        guidance: Guidance = 1.0,
        temperature: float = 1.0,
        autoguidance: float | None = None,
        kind: int = 0,
        **solver: Setting,
    ) -> Codes:
        """Draw codes.

        Args:
            count: how many.
            seed: sample i of a seed starts from the same noise, whatever `count` and `chunk`.
            first: number of the first sample.
            chunk: how many are drawn at once; default by their size.
            watch: is shown the points of each chunk on their way: (share of it done, from 0, noise;
                their numbers [B, K] in the units of the codes).
            condition: what to ask for, see `ask`; None: nothing.
            guidance: how strongly; 1: as learnt.
            temperature: factor of the noise that they start from; 1: as learnt.
            autoguidance: how far they are led away from the network's younger self, where the
                settings keep it; 1: not at all; default: the settings' weight.
            kind: number of the architecture, of codes of several.
            solver: settings of `config.solver` other than the configured ones.

        Returns:
            Codes on the CPU, in the shape of the training codes.

        Raises:
            ConfigError: the density knows no conditions or not this one, or no such architecture.
        """
        settings = replace(self.config.solver, **solver)
        asked = self.ask(condition, guidance)
        autoguidance = self._weight_of(autoguidance)
        present_BK = self._present_of(kind)
        shown = watch and (lambda done, x_BK: watch(done, self.scaling.undo(x_BK)))
        noise_NK = draw_noise(count, self.shape.size, seed=seed, first=first)
        chunk = chunk or self._chunk()
        for place, x_BK in enumerate(noise_NK.split(chunk)):  # views: noise becomes the samples
            noise_BK = x_BK.to(self.device) * temperature
            noise_BK = noise_BK if present_BK is None else noise_BK * present_BK
            number = first + place * chunk
            drawn_BK = self.draw(
                noise_BK,
                settings,
                seed=seed,
                first=number,
                condition_BP=asked and asked.rows(number, len(x_BK)).to(self.device),
                guidance=asked.guidance if asked else 1.0,
                autoguidance=autoguidance,
                present_BK=present_BK,
                watch=shown,
            )
            x_BK.copy_(self.scaling.undo(drawn_BK))
        return self.shape.fill(noise_NK, torch.full((count,), kind))

    def _weight_of(self, autoguidance: float | None) -> float:
        """Return how far samples are led away from the younger self; while it trains, not at all.

        Raises:
            ConfigError: a weight is asked for, and the settings keep no younger self.
        """
        config = self.config.autoguidance
        if config is None and autoguidance not in (None, 1):
            raise ConfigError(
                f"autoguidance = {autoguidance:g}: this {self.config.kind} was fitted with "
                "density.autoguidance = null and has no younger self to be led away from: leave it "
                "out, or fit one with density.autoguidance.after = 0.1"
            )
        if self.younger is None:
            return 1.0
        return config.weight if autoguidance is None else autoguidance

    def _chunk(self) -> int:
        """Return how many samples are drawn at once."""
        cached = self.device.type == "cpu" and self.shape.sections is not None
        widest = self.config.backbone.widest(self.shape)
        return max(1, (_CACHED_NUMBERS if cached else CHUNK_NUMBERS) // widest)

    def ask(self, condition: Wanted, guidance: Guidance = 1.0) -> Asked | None:
        """Return what samples are asked for, refusing what was not learnt; see the base."""
        if self.conditions is None:
            return super().ask(condition, guidance)
        told = f"guidance = {guidance:g}" if isinstance(guidance, (int, float)) else guidance
        if condition is None and guidance != 1:
            raise ConfigError(
                f"{told} without a condition has nothing to guide to: give a condition, of "
                f"{self.conditions.known}"
            )
        asked = None
        if condition is not None:
            asked = Asked.of(self.conditions, condition, guidance=guidance)
        if not self.config.drop_condition and not (
            asked and asked.is_whole and not asked.is_guided
        ):
            raise ConfigError(
                f"condition = {condition}, {told}: fitted with drop_condition = 0, this "
                f"{self.config.kind} has not learnt to draw without a condition, which guidance "
                "and a condition left out both need: give every condition and guidance 1, or fit "
                "it with density.drop_condition = 0.1"
            )
        return asked

    def _present_of(self, kind: int) -> torch.Tensor | None:
        """Return which numbers an architecture has, [1, K]; None where there is one alone."""
        num = 1 if self.present_AK is None else len(self.present_AK)
        if not 0 <= kind < num:
            raise ConfigError(
                f"architecture number {kind}: this {self.config.kind} has learnt {num}, numbered "
                "from 0: choose one of these"
            )
        return None if self.present_AK is None else self.present_AK[kind].unsqueeze(0)

    @torch.no_grad()
    def loss(
        self,
        codes: Codes,
        seed: int,
        *,
        conditions: Told | None = None,
        metric: Sequence[torch.Tensor] = (),
    ) -> float:
        """Return the loss that was trained, of any codes; of equally many at the same noise.

        What training records of its batches and of held-out codes is at different noise and times.

        Args:
            codes: in the shape of the training codes.
            seed: of noise and times.
            conditions: as of `fit`.
            metric: as of `fit`.
        """
        check_codes(codes, self.shape)
        some = self.examples(codes, conditions)
        return self.task(some, some, seed=seed, metric=self._metric(metric)).validate(self.module)

    def save(self, folder: Path) -> None:
        """Write the fitted density to its one file."""
        state = {
            "config": to_dict(self.config),
            "module": self.module.state_dict(),
            "younger": self.younger and self.younger.state_dict(),
            "kernel": kernel_of(self.module),
            "scaling": vars(self.scaling),
            "shape": vars(self.shape),
            "conditions": self.conditions and self.conditions.to_json(),
        }
        save_state(Path(folder) / self.files[0], state)

    @classmethod
    def load(cls, folder: Path) -> "LearntDensity":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: the file is damaged.
        """
        path = Path(folder) / cls.files[0]
        state = load_state(path)
        density = cls(build(cls.settings, state["config"], source=str(path)))
        told = state["conditions"]
        conditions = told and Conditions.from_json(told)
        density.prepare(
            CodeShape(**state["shape"]), Scaling(**state["scaling"]), seed=0, conditions=conditions
        )
        density.module.load_state_dict(state["module"])
        density._take_younger(state["younger"])
        for network in density.networks:
            use_kernel(network, state["kernel"])
        return density
