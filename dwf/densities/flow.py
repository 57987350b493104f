"""Flow matching as a density: fit to codes, sample, evaluate the likelihood.

Within, all codes are vectors: of a sequence, the numbers that stand for weights, token after token.
So a loss is a mean over weights, and a likelihood is on their space, whatever the padding. Of codes
of several architectures, vectors have the numbers of all, and those that a network lacks count for
nothing.

Shape suffixes: N codes, B codes of a chunk, K numbers of a code, A architectures.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dwf.backbones.config import build_backbone, widest
from dwf.codecs.codes import Codes
from dwf.densities.conditions import Conditions
from dwf.densities.config import FlowConfig
from dwf.densities.likelihood import log_density
from dwf.densities.matching import (
    LAST_TIME,
    Examples,
    FlowMatching,
    normal_velocity,
    velocity_of_target,
)
from dwf.densities.pairing import Groups
from dwf.densities.scaling import Scaling, check_codes, vectors
from dwf.densities.solver import draw_noise, solve
from dwf.errors import ConfigError, TooFewNetworks
from dwf.randomness import seeded, torch_stream
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict
from dwf.training.loop import Outcome, find_device, train

FILE = "flow.pt"
# Numbers of the codes that are integrated at once.
_CHUNK_NUMBERS = 2**24
# Of sequences on a CPU, numbers of the backbone's widest layer: more leave its caches, and take
# half as long again for each sample.
_CACHED_NUMBERS = 2**21
# Up to this many numbers, a likelihood takes the exact trace of the Jacobian.
_EXACT_FEATURES = 64


class Flow:
    """A continuous normalising flow from Gaussian noise (t = 0) to codes (t = 1)."""

    files = (FILE,)
    """Files that `save` writes."""
    mixes = True
    """Whether it takes codes of several architectures; see `Codes`."""

    def __init__(self, config: FlowConfig):
        self.config = config
        self.device = find_device(config.training.device)

    def fit(
        self,
        train_codes: Codes,
        val_codes: Codes,
        run: RunFolder,
        seed: int = 0,
        train_conditions_N: torch.Tensor | None = None,
        val_conditions_N: torch.Tensor | None = None,
        metric: Sequence[torch.Tensor] = (),
    ) -> Outcome:
        """Learn the velocity, or go on where the run stopped.

        Args:
            train_codes: to learn from, vectors [N, K] or sequences [N, T, C].
            val_codes: held-out ones, for validation; may be empty.
            run: takes checkpoints and metrics; of this density alone.
            seed: of initialisation, batches and noise.
            train_conditions_N: what `condition` names of each training network, as the zoo has it;
                a number that is not finite stands for none.
            val_conditions_N: the same of the held-out networks; None: they have none.
            metric: with `behaviour`, of each group of tokens what their errors count, [C, C]; see
                `generators/sensitivity.py`.

        Raises:
            TooFewNetworks: fewer training codes than the batch size.
            ShapeMismatch: the codes are not of one shape; see `scaling.check_codes`.
            ConfigError: the backbone takes sequences and the codes are vectors, or the reverse; or
                there is a condition, or `behaviour`, and nothing to learn it from.
            TrainingDiverged: the loss is not finite.
        """
        check_codes(train_codes)
        check_codes(val_codes, like=train_codes)
        batch_size = self.config.training.batch_size
        if len(train_codes) < batch_size:
            raise TooFewNetworks(
                f"{len(train_codes)} training networks are fewer than batch_size = {batch_size}: "
                f"lower training.batch_size to at most {len(train_codes)}, or train a larger zoo"
            )
        kind_N, present_AK = train_codes.kind_N, train_codes.present_AK
        present_NK = None if kind_N is None else present_AK[kind_N]
        scaling = Scaling.fit(vectors(train_codes), self.config.standardise, present_NK)
        conditions = None
        if self.config.condition != "none":
            conditions = Conditions.fit(self.config.condition, train_conditions_N)
        self._prepare(train_codes, scaling, seed, conditions)
        task = FlowMatching(
            self.config,
            self.module,
            self._examples(train_codes, train_conditions_N),
            self._examples(val_codes, val_conditions_N),
            seed,
            self._groups(),
            self._metric(metric),
        )
        return train(task, self.config.training, seed, run, "flow")

    def _prepare(
        self, codes: Codes, scaling: Scaling, seed: int, conditions: Conditions | None = None
    ) -> None:
        like = codes.take(slice(0, 0))
        self.like = replace(like, values=like.values.cpu())
        self.scaling, self.conditions = scaling.to(self.device), conditions
        with seeded(seed, "initialisation"):
            module = build_backbone(
                self.config.backbone, codes.size, codes.groups, conditions is not None
            )
        self.module = module.to(self.device).eval()
        present_AK = codes.present_AK
        self.present_AK = None if present_AK is None else present_AK.to(self.device)

    def _examples(self, codes: Codes, conditions_N: torch.Tensor | None) -> Examples:
        """Return codes on the device, standardised, with what is known of them."""
        condition_N = kind_N = None
        if self.conditions is not None:
            if conditions_N is None:
                conditions_N = torch.full((len(codes),), math.nan)
            condition_N = self.conditions.standardise(conditions_N).to(self.device)
        if codes.kind_N is not None:
            kind_N = codes.kind_N.to(self.device)
        examples = Examples(vectors(codes).to(self.device), condition_N, kind_N, self.present_AK)
        standardised_NK = self.scaling.apply(examples.codes_NK, examples.present_NK)
        return replace(examples, codes_NK=standardised_NK)

    def _metric(self, metric: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return it on the device, if it is wanted."""
        if not self.config.behaviour:
            return []
        sizes = [size for _, size in self.like.groups]
        if [tuple(part.shape) for part in metric] != [(size, size) for size in sizes]:
            raise ConfigError(
                f"density.behaviour = {self.config.behaviour:g}: {len(metric)} metrics of shapes "
                f"{[tuple(part.shape) for part in metric]}, for tokens of {sizes} numbers: give "
                "`fit` what generators.sensitivity.measure_sensitivity returns"
            )
        return [part.to(self.device) for part in metric]

    def _groups(self) -> Groups:
        """Return the groups of tokens, and which are exchangeable; none of vectors."""
        if self.like.groups is None:
            return ()
        are_free = self.config.backbone.exchangeable(self.like.groups)
        pairs = zip(self.like.groups, are_free, strict=True)
        return [(count, size, is_free) for (count, size), is_free in pairs]

    def velocity(
        self,
        x_BK: torch.Tensor,
        t: torch.Tensor,
        condition_B: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the velocity_BK of points in standardised units at one time in [0, 1].

        Args:
            x_BK: points.
            t: their time, a scalar.
            condition_B: standardised conditions, or that of all, [1]; None: none.
            present_BK: which numbers each point has, or [1, K]; None: all.
        """
        told = {"condition_B": condition_B, "present_BK": present_BK}
        told = {name: value for name, value in told.items() if value is not None}
        config = self.config
        noise = config.source_std, config.sigma
        if config.prediction == "target":
            t = t.clamp(max=LAST_TIME)
            target_BK = self.module(x_BK, t.reshape(1), **told)
            return velocity_of_target(target_BK, x_BK, t, *noise)
        said_BK = self.module(x_BK, t.reshape(1), **told)
        if config.prediction == "velocity":
            return said_BK
        return said_BK + normal_velocity(x_BK, t, *noise)

    def guided(
        self,
        x_BK: torch.Tensor,
        t: torch.Tensor,
        condition_B: torch.Tensor | None,
        guidance: float,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return v_none + guidance (v_condition - v_none); arguments as of `velocity`.

        Source: Ho and Salimans, arXiv 2207.12598, eq. 6, whose w is guidance - 1.
        """
        told_BK = self.velocity(x_BK, t, condition_B, present_BK)
        if guidance == 1:
            return told_BK
        return torch.lerp(self.velocity(x_BK, t, None, present_BK), told_BK, guidance)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        seed: int,
        first: int = 0,
        chunk: int | None = None,
        condition: float | None = None,
        guidance: float = 1.0,
        kind: int = 0,
        **solver: Any,
    ) -> Codes:
        """Draw codes.

        Args:
            count: how many.
            seed: sample i of a seed starts from the same noise, whatever `count` and `chunk`.
            first: number of the first sample.
            chunk: how many are integrated at once; default by their size.
            condition: what to ask for, as the zoo has it; None: nothing.
            guidance: how strongly; 1: as learnt.
            kind: number of the architecture, of codes of several.
            solver: settings of `SolverConfig` other than the configured ones.

        Returns:
            Codes on the CPU, in the shape of the training codes.

        Raises:
            ConfigError: the flow knows no conditions or not this one, or no such architecture.
        """
        num_features = self.like.size
        settings = replace(self.config.solver, **solver)
        condition_B = self.ask(condition, guidance)
        present_BK = self._present_of(kind)
        noise_NK = draw_noise(count, num_features, seed, first) * self.config.source_std
        for x_BK in noise_NK.split(chunk or self._chunk()):  # views: the noise becomes the samples
            start_BK = x_BK.to(self.device)
            start_BK = start_BK if present_BK is None else start_BK * present_BK
            moved_BK = solve(
                lambda t, x: self.guided(x, t, condition_B, guidance, present_BK),
                start_BK,
                settings,
            )
            x_BK.copy_(self.scaling.undo(moved_BK))
        return self.like.refill(noise_NK, torch.full((count,), kind))

    def _chunk(self) -> int:
        """Return how many samples are integrated at once."""
        num, on_cpu = self._widest(), self.device.type == "cpu"
        cached = on_cpu and self.like.groups is not None
        return max(1, (_CACHED_NUMBERS if cached else _CHUNK_NUMBERS) // num)

    def _widest(self) -> int:
        return widest(self.config.backbone, self.like.size, self.like.groups)

    def ask(self, condition: float | None, guidance: float = 1.0) -> torch.Tensor | None:
        """Return a condition as the backbone takes it, refusing what was not learnt."""
        if self.conditions is None:
            if condition is not None or guidance != 1:
                raise ConfigError(
                    f"condition = {condition}, guidance = {guidance:g}: this flow was fitted with "
                    "density.condition = none and knows no conditions: leave both out, or fit one "
                    "with density.condition = val_accuracy"
                )
            return None
        if condition is None and guidance != 1:
            raise ConfigError(
                f"guidance = {guidance:g} without a condition has nothing to guide to: give a "
                f"condition in [{self.conditions.low:.6g}, {self.conditions.high:.6g}]"
            )
        if not self.config.drop_condition and (condition is None or guidance != 1):
            raise ConfigError(
                f"condition = {condition}, guidance = {guidance:g}: fitted with drop_condition = "
                "0, this flow has not learnt to draw without a condition, which both need: give a "
                "condition and guidance 1, or fit it with density.drop_condition = 0.1"
            )
        return None if condition is None else self.conditions.ask(condition).to(self.device)

    def _present_of(self, kind: int) -> torch.Tensor | None:
        """Return which numbers an architecture has, [1, K]; None where there is one alone."""
        num = 1 if self.present_AK is None else len(self.present_AK)
        if not 0 <= kind < num:
            raise ConfigError(
                f"architecture number {kind}: this flow has learnt {num}, numbered from 0: choose "
                "one of these"
            )
        return None if self.present_AK is None else self.present_AK[kind].unsqueeze(0)

    def log_prob(
        self,
        codes: Codes,
        exact: bool | None = None,
        probes: int = 8,
        seed: int = 0,
        condition: float | None = None,
        **solver: Any,
    ) -> torch.Tensor:
        """Return the log density of codes in nats, float32, shape [N].

        By the instantaneous change of variables (Chen et al., arXiv 1806.07366, eq. 8). Of codes of
        several architectures, the density of a network's numbers given its architecture.

        Args:
            codes: in the shape of the training codes.
            exact: the exact trace of the Jacobian, in O(K) more time; otherwise Hutchinson's
                estimate (arXiv 1810.01367), unbiased. Default: exact up to 64 numbers.
            probes: random signs an estimate is the mean of.
            seed: of the random signs.
            condition: given which; None: none.
            solver: settings of `SolverConfig` other than the configured ones.

        Raises:
            ConfigError: as of `sample`.
        """
        check_codes(codes, self.like)
        condition_B = self.ask(condition)
        num_features = codes.size
        settings = replace(self.config.solver, **solver)
        exact = num_features <= _EXACT_FEATURES if exact is None else exact
        generator = torch_stream(seed, "hutchinson")
        backward = num_features if exact else probes
        chunk = max(1, _CHUNK_NUMBERS // (self._widest() * backward))
        parts = []
        for start in range(0, len(codes), chunk):
            some = self._examples(codes.take(slice(start, start + chunk)), None)
            x_BK, present_BK = some.codes_NK, some.present_NK
            signs = torch.randint(0, 2, (probes, *x_BK.shape), generator=generator) * 2.0 - 1
            part_B = log_density(
                lambda x, t, present: self.velocity(x, t, condition_B, present),
                x_BK,
                settings,
                self.config.source_std,
                present_BK,
                None if exact else signs.to(x_BK),
            )
            parts.append(part_B - self.scaling.log_volume(num_features, present_BK))
        return torch.cat([torch.empty(0), *parts]).float().cpu()

    @torch.no_grad()
    def loss(
        self,
        codes: Codes,
        seed: int,
        conditions_N: torch.Tensor | None = None,
        metric: Sequence[torch.Tensor] = (),
    ) -> float:
        """Return the loss that was trained, of any codes; of equally many at the same noise.

        What training records of its batches and of held-out codes is at different noise and times.

        Args:
            codes: in the shape of the training codes.
            seed: of noise and times.
            conditions_N: as of `fit`.
            metric: as of `fit`.
        """
        check_codes(codes, self.like)
        some = self._examples(codes, conditions_N)
        settings = self.config, self.module, some, some, seed, self._groups(), self._metric(metric)
        return FlowMatching(*settings).validate(self.module)

    def save(self, folder: Path) -> None:
        """Write the fitted flow to `folder/flow.pt`."""
        state = {
            "config": to_dict(self.config),
            "module": self.module.state_dict(),
            "scaling": vars(self.scaling),
            "like": vars(self.like),
            "conditions": self.conditions and vars(self.conditions),
        }
        save_state(Path(folder) / FILE, state)

    @classmethod
    def load(cls, folder: Path) -> "Flow":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: the file is damaged.
        """
        path = Path(folder) / FILE
        state = load_state(path)
        flow = cls(build(FlowConfig, state["config"], str(path)))
        told = state.get("conditions")
        conditions = told and Conditions(**told)
        flow._prepare(Codes(**state["like"]), Scaling(**state["scaling"]), 0, conditions)
        flow.module.load_state_dict(state["module"])
        return flow
