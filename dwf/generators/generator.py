"""A generator of networks: a codec and a density over its codes.

    generator.json    kinds, settings and what it learns from; written first
    codec/            see codecs/codec.py
    metric.pt         of a flow with `behaviour`: what its errors count; see sensitivity.py
    answers.json      of a flow with `answers`: the unit of their errors; see answering.py
    density/          the density's own files; written last

Shape suffixes: N networks, B networks of a block, D numbers of a network.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from dwf.codecs.codec import HEAD as CODEC_HEAD
from dwf.codecs.codec import Codec, TellUnreached, codec_folder
from dwf.codecs.codes import Codes, Judge
from dwf.codecs.config import CODECS, CodecSettings
from dwf.codecs.stored import CodeStore
from dwf.densities.base_config import DensitySettings
from dwf.densities.config import DENSITIES
from dwf.densities.density import Density, Setting
from dwf.densities.solver import Watch
from dwf.errors import ConfigError, RunConflict
from dwf.files import read_json, told_by
from dwf.flags import words_naming
from dwf.generators.answering import Answering
from dwf.generators.config import BATCHNORM_IMAGES, GateConfig
from dwf.generators.examiner import Examiner
from dwf.generators.gate import pass_gate
from dwf.generators.learning import Learning
from dwf.generators.likelihood import measure_likelihood
from dwf.generators.looking import fit_codec, judge_of
from dwf.generators.round_trip import round_trip_error
from dwf.generators.sensitivity import measure_sensitivity
from dwf.generators.subset import Subset
from dwf.metrics import logger
from dwf.names import refuse_no_name
from dwf.notebooks import facts_html
from dwf.plain import Json
from dwf.ranks import world
from dwf.run_folder import RunFolder, load_state, save_state, write_json
from dwf.settings import build, find, to_dict
from dwf.zoo.facts import Subject
from dwf.zoo.layout import Layout, Span
from dwf.zoo.moments import Sources

FORMAT, VERSION = "dwf-generator", 4
HEAD, DENSITY, METRIC, ANSWERS = "generator.json", "density", "metric.pt", "answers.json"
_BLOCK_BYTES = 2**28


class Generator:
    """A codec and a density.

    Args:
        codec: fitted, or to be fitted.
        density: fitted to the codec's codes, or to be fitted.
        origin: what it learns from, plain data: see `learning.origin_facts`.
        head: what `generator.json` says of it, where it is read from there.
        zoo: number of the zoo whose architecture it draws: 0, or one of `more_zoos`.
    """

    def __init__(
        self,
        codec: Codec,
        density: Density,
        *,
        origin: dict[str, Json],
        head: dict[str, Json] | None = None,
        zoo: int = 0,
    ):
        self.codec, self.density, self.origin = codec, density, origin
        # As it was written: settings that are newer than it would change its digest.
        self.head = head or {
            "format": FORMAT,
            "version": VERSION,
            "codec": to_dict(codec.config),
            "density": to_dict(density.config),
            "origin": origin,
        }
        """Facts that `generator.json` holds."""
        self.zoos = (origin, *origin.get("more_zoos", ()))
        """Facts of each zoo that it learns from."""
        self.source: dict[str, Json] = self.zoos[zoo]
        """Facts of the zoo whose architecture it draws."""

    @classmethod
    def of(
        cls, codec: CodecSettings, density: DensitySettings, *, origin: dict[str, Json]
    ) -> "Generator":
        """Return one that is not fitted yet."""
        make_codec, make_density = find(CODECS, codec.kind), find(DENSITIES, density.kind)
        return cls(make_codec(codec), make_density(density), origin=origin)

    def __repr__(self) -> str:
        told = self._words
        return f"Generator({told['codec']} + {told['density']}, of {told['learnt from']})"

    def _repr_html_(self) -> str:
        return facts_html("generator", self._words)

    @property
    def _words(self) -> dict[str, str]:
        """Facts about it, name -> value."""
        subset = Subset.read(self.origin)
        chosen = "chosen rows of " if "learnt" in self.origin else ""
        part = f"{subset.label} of " if subset else chosen
        learnt = [
            f"zoo {each['zoo']} ({part}{each['networks']['train']:,} training networks)"
            for each in self.zoos
        ]
        return {
            "codec": self.codec.config.kind,
            "density": self.density.config.kind,
            "learnt from": " and ".join(learnt),
            "draws networks of": f"zoo {self.source['zoo']} ({self.subject.network.named})",
            "seed": str(self.origin["seed"]),
        }

    @property
    def subject(self) -> Subject:
        """Architecture of its networks, and the data that they are for."""
        return subject_of(self.source)

    @property
    def digest(self) -> str:
        """A short name of settings and origin: equal digests, equal samples."""
        text = json.dumps(self.head, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def fit(
        self,
        for_codec: Learning,
        for_density: Learning,
        *,
        run: RunFolder,
        seed: int,
        likelihood: int = 0,
        gate: GateConfig | None = None,
    ) -> dict[str, Json]:
        """Fit codec and density in a run folder, or go on where the run stopped.

        Args:
            for_codec: networks that the codec learns from; held-out ones may be none.
            for_density: networks that the density learns from, of the codec's first layout, or of
                several that the codec takes together.
            run: takes `generator.json`, `codec/`, `density/`, checkpoints and metrics.
            seed: of initialisation, batches and noise.
            likelihood: of how many networks the likelihood is measured; see `measure_likelihood`.
            gate: what a codec that learns must give back before the density is fitted; None: no
                test; see `gate.pass_gate`.

        Ranks share the passes over the networks, and train together what has an engine for it. A
        density of the engine `plain`, or that does not train, is fitted by the first alone. Only
        the first rank's density is whole afterwards.

        Returns:
            What was measured, plain data: the codec's facts, its `round_trip` on held-out networks
            (see `round_trip_error`), what the density says of its training, and its `likelihood`;
            and what the `gate` found, where there is one.

        Raises:
            ConfigError: the codec does not pass the gate.
            TooFewNetworks, ShapeMismatch, CorruptShard: see `Codec.fit` and the density's `fit`.
        """
        ours, folder = world(), codec_folder(run)
        ours.on_first(lambda: write_json(run.path / HEAD, self.head))
        if not ours.on_first((folder / CODEC_HEAD).exists):
            ours.on_first(CodeStore(run).remove)  # of a codec that was removed
            fit_codec(self.codec, for_codec, subject=self.subject, run=run, seed=seed)
            ours.on_first(lambda: self.codec.save(folder))
            # Of a codec that trained in pieces, the first rank's alone is whole.
            self.codec = ours.on_all(lambda: self.codec if ours.is_first else Codec.load(folder))
        else:
            logger.info("codec %s is fitted already: %s", self.codec.config.kind, folder)
            self.codec = ours.on_all(lambda: Codec.load(folder))
        found = {}
        if gate is not None and self.codec.config.training is not None:
            found = {"gate": ours.on_first(lambda: self._pass_gate(gate, for_density, run, seed))}
        training = self.density.config.training
        if training is None or training.engine == "plain":
            fitted = ours.on_first(lambda: self._fit_density(for_density, run, seed, likelihood))
        else:
            fitted = self._fit_density(for_density, run, seed, likelihood)
        return fitted | found

    def _pass_gate(
        self, gate: GateConfig, learning: Learning, run: RunFolder, seed: int
    ) -> dict[str, Json]:
        def examine() -> Examiner:
            return Examiner(
                self.subject,
                self.layout,
                batchnorm_images=BATCHNORM_IMAGES,
                wanted_by="gate scores reconstructed networks on",
            )

        return pass_gate(self.codec, learning, config=gate, examine=examine, run=run, seed=seed)

    def _fit_density(
        self, learning: Learning, run: RunFolder, seed: int, likelihood: int
    ) -> dict[str, Json]:
        ours = world()
        store = CodeStore(run)
        train_codes = store.codes("train", self.codec, sources=learning.train)
        val_codes = store.codes("val", self.codec, sources=learning.val)
        given = {}
        if learning.conditions is not None:
            names = "train_conditions", "val_conditions"
            given = dict(zip(names, learning.conditions, strict=True))
        if self.density.config.takes_metric:
            given["metric"] = self._metric(learning.train, run, seed)
        if self.density.config.looks_at_samples:
            given["judge"] = self._judge()
        if self.density.config.answers is not None:
            given["ask"] = self._ask(train_codes, learning.train, run, seed)
        outcome = self.density.fit(train_codes, val_codes, run=run, seed=seed, **given)

        def finish() -> dict[str, Json]:
            self.density.save(run.path / DENSITY)
            told = self.density.facts | (vars(outcome) if outcome is not None else {})
            if likelihood:
                found = measure_likelihood(
                    self.codec,
                    self.density,
                    train_codes=train_codes,
                    val_codes=val_codes,
                    count=likelihood,
                    seed=seed,
                    folder=store.folder,
                )
                told = told | {"likelihood": found}
            error = round_trip_error(self.codec, learning.val)
            store.remove()
            return {"codec": self.codec.facts | {"round_trip": error}, "density": told}

        return ours.on_first(finish)

    def _judge(self) -> Judge:
        """Return what scores codes on validation images; see `looking.judge_of`."""
        return judge_of(
            self.subject,
            self.layout,
            training=self.density.config.training,
            key="density.training",
            decode=lambda codes: self.codec.decode(codes, self.layout),
        )

    def _metric(self, train: Sources, run: RunFolder, seed: int) -> list[torch.Tensor]:
        """Return what a flow's errors count: as first measured, so that resuming is exact."""
        file = run.path / METRIC

        def measure() -> None:
            if not file.exists():
                save_state(file, measure_sensitivity(self.codec, train, seed=seed))

        world().on_first(measure)
        return load_state(file)

    def _ask(self, codes: Codes, train: Sources, run: RunFolder, seed: int) -> Answering:
        """Return what asks networks, in units as first measured, so that resuming is exact."""
        file = run.path / ANSWERS
        answering = Answering(self.codec, train[0][0])

        def measure() -> None:
            if not file.exists():
                write_json(file, {"unit": answering.measure(codes, seed=seed)})

        world().on_first(measure)
        answering.unit = read_json(file)["unit"]
        return answering

    @property
    def layout(self) -> Layout:
        """Layout of the networks that it draws."""
        return self.codec.layout_of(self.source["layout"])

    def of_zoo(self, name: str | None) -> "Generator":
        """Return it as one that draws the architecture of one of its zoos; None: of the first.

        Any other: `architecture.of_network`.

        Raises:
            ConfigError: it has no such zoo.
        """
        names = [each["zoo"] for each in self.zoos]
        if name is not None and name not in names:
            raise ConfigError(
                f"zoo = {name!r}: this generator learnt from {', '.join(names)}: name one of "
                "these, or leave it out for the first"
            )
        number = 0 if name is None else names.index(name)
        return Generator(self.codec, self.density, origin=self.origin, head=self.head, zoo=number)

    @property
    def numbers(self) -> int:
        """The most numbers that a network takes while it is drawn."""
        return max(self.codec.layout_of(each["layout"]).size for each in self.zoos)

    @property
    def architecture(self) -> dict[str, Json] | None:
        """A new architecture, for the provenance of samples; None: that it learnt from."""
        return None

    @property
    def spans(self) -> list[Span]:
        """The stretches of a network that it draws; the others are of a template."""
        return self.codec.spans_of(self.layout)

    @property
    def block_size(self) -> int:
        """B: how many networks a block of bounded memory has; codes are as long as the widest."""
        return max(1, _BLOCK_BYTES // (4 * self.numbers))

    def sample(
        self,
        count: int,
        seed: int,
        *,
        first: int = 0,
        watch: Watch | None = None,
        told: TellUnreached | None = None,
        **how: Setting,
    ) -> torch.Tensor:
        """Draw networks, of the architecture of one of its zoos; see `of_zoo`.

        Args:
            count: how many.
            seed: sample i of a seed is the same network, up to rounding (and an adaptive solver's
                tolerance), whatever `count` is.
            first: number of the first sample.
            watch: is shown codes on their way, of a density with a solver; see
                `LearntDensity.sample`, and `decode` for networks.
            told: see `Codec.draw`.
            how: settings of the density's solver other than its own; `condition`, `guidance`,
                `temperature`, `autoguidance`.

        Returns:
            weights_ND, float32; not held to be finite.
        """
        if self.density.shape.is_mixed:
            how["kind"] = self._kind
        watching = {} if watch is None else {"watch": watch}
        codes = self.density.sample(count, seed, first=first, **how, **watching)
        return self.codec.draw(codes, self.layout, seed=seed, first=first, told=told)

    def decode(self, numbers_BK: torch.Tensor) -> torch.Tensor:
        """Return the networks of codes that are given by their numbers, weights_BD, float32."""
        kind_B = torch.full((len(numbers_BK),), self._kind if self.density.shape.is_mixed else 0)
        codes = self.density.shape.fill(numbers_BK.cpu(), kind_B)
        return self.codec.decode(codes, self.layout)

    @property
    def _kind(self) -> int:
        return self.density.shape.layouts.index(self.layout.digest)

    def stream(
        self, count: int, seed: int, *, first: int = 0, **how: Setting
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (number of a block's first sample, weights_BD) in order, in bounded memory."""
        for start, num in self.blocks(count, first):
            yield start, self.sample(num, seed, first=start, **how)

    def blocks(self, count: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (number of its first sample, how many it has) of blocks of bounded memory."""
        size = self.block_size
        for start in range(first, first + count, size):
            yield start, min(size, first + count - start)

    def save(self, folder: Path | str) -> None:
        """Write it to a folder; `load` reads it."""
        folder = Path(folder)
        write_json(folder / HEAD, self.head)
        self.codec.save(folder / "codec")
        self.density.save(folder / DENSITY)

    @classmethod
    def is_whole(cls, folder: Path | str) -> bool:
        """Whether all its parts are there; a damaged one that was removed is to be made again."""
        folder = Path(folder)
        if not ((folder / HEAD).exists() and (folder / "codec" / CODEC_HEAD).exists()):
            return False
        density = _density_of(read_head(folder), folder)
        return all((folder / DENSITY / name).exists() for name in density.files)

    @classmethod
    def load(cls, folder: Path | str) -> "Generator":
        """Read what `save` or a finished `fit` wrote.

        Raises:
            RunConflict: the folder holds no generator, or one that is not fitted to the end.
            CorruptCheckpoint: a file of the density is damaged.
        """
        folder = Path(folder)
        head = read_head(folder)
        with told_by(folder / HEAD, cure=_cure(folder), error=RunConflict):
            origin = head["origin"]
            for each in (origin, *origin.get("more_zoos", ())):
                refuse_no_name(each["zoo"], f"{folder / HEAD}: zoo")
        found = _density_of(head, folder)
        codec = Codec.load(folder / "codec")
        try:
            density = found.load(folder / DENSITY)
        except FileNotFoundError:
            raise RunConflict(
                f"{folder} holds a generator that is not fitted to the end: go on with "
                f"dwf generator --resume {words_naming(folder, 'runs')}"
            ) from None
        with told_by(folder / HEAD, cure=_cure(folder), error=RunConflict):
            return cls(codec, density, origin=origin, head=head)


def _density_of(head: dict[str, Json], folder: Path) -> type[Density]:
    """Return the class of the density that a generator's head names."""
    with told_by(folder / HEAD, cure=_cure(folder), error=RunConflict):
        kind = head["density"]["kind"]
        if kind not in [*DENSITIES]:  # it may be a list
            raise ValueError(f"density.kind = {kind!r}")
    return find(DENSITIES, kind)


def subject_of(told: dict[str, Json]) -> Subject:
    """Return architecture and data of a zoo, from what `learning.origin_facts` tells of it."""
    return build(Subject, told["facts"], source=HEAD, key="facts")


def _cure(folder: Path) -> str:
    return f"remove it and go on with dwf generator --resume {words_naming(folder, 'runs')}"


def read_head(folder: Path) -> dict[str, Json]:
    """Return what `generator.json` says.

    Raises:
        RunConflict: there is none, or of another format version.
    """
    file = folder / HEAD
    try:
        head = read_json(
            file,
            keys=("format", "version"),
            cure=_cure(folder),
            error=RunConflict,
        )
    except FileNotFoundError:
        raise RunConflict(
            f"{folder} holds no generator ({HEAD} is missing): fit one with dwf generator"
        ) from None
    found = (head["format"], head["version"])
    if found != (FORMAT, VERSION):
        raise RunConflict(
            f"{file}: format {found[0]} {found[1]}, this dwf reads {FORMAT} {VERSION}: remove "
            f"{folder} and fit the generator again with dwf generator"
        )
    return head
