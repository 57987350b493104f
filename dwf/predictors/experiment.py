"""The networks of an experiment and what is told of them, decided once, before any row is fitted.

runs/NAME/networks.npz       rows of each zoo that are for training, validation and test; values
runs/NAME/reference.npz      where training networks lie, see `distance`
runs/NAME/luck.npz           how accuracies of test networks change with other images, see `luck`
runs/NAME/experiment.json    zoos by name and fingerprint, properties, counts

Shape suffixes: N networks, P properties, K networks of a zoo that are chosen.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.files import read_json, reading_arrays
from dwf.predictors import distance, luck
from dwf.predictors.examples import Examples
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.properties import Property, read_properties
from dwf.predictors.splits import PARTS, architecture_of, parts_of
from dwf.predictors.start import digest_of
from dwf.predictors.told import LEAST, Truth
from dwf.run_folder import replacing, write_json
from dwf.settings import Name, build
from dwf.zoo.manifest import zoos_named
from dwf.zoo.store import Zoo

FILE, NETWORKS = "experiment.json", "networks.npz"


@dataclass(frozen=True)
class ZooFacts:
    """A zoo of an experiment."""

    name: Name
    fingerprint: str
    layout: str
    """Digest of its layout."""
    architecture: str
    """Kind of its networks and how many weights they have."""


@dataclass(frozen=True)
class Origin:
    """Networks that an experiment is on: with others it is another experiment."""

    zoos: tuple[ZooFacts, ...]
    properties: tuple[str, ...]
    images: tuple[int | None, ...]
    """Number of images behind each property that is a share of images."""
    counts: dict[str, int]
    """Part -> how many networks."""
    left_out: int
    """Networks of which a property was not measured."""
    digest: str
    """Digest of which networks are in each part, and of their values."""
    start: str | None
    """SHA-256 of the predictor that rows begin from."""

    @classmethod
    def read(cls, folder: Path) -> "Origin":
        """Return that of a run's folder."""
        file = folder / FILE
        return build(cls, read_json(file), source=str(file))


@dataclass(frozen=True)
class Networks:
    """Networks of one part: train, val or test."""

    rows: tuple[np.ndarray, ...]
    """Rows of each zoo, int64."""
    network: tuple[np.ndarray, ...]
    """Network of each of these rows, int64; of a zoo of one network each row counts as one."""
    values_NP: np.ndarray
    """Values of their properties, one zoo after the other."""

    @property
    def count(self) -> int:
        """How many networks, however many rows of each."""
        return sum(len(np.unique(own_K)) for own_K in self.network)


@dataclass(frozen=True)
class Experiment:
    """Zoos, and which of their networks are for what."""

    zoos: tuple[Zoo, ...]
    origin: Origin
    parts: dict[str, Networks]

    @classmethod
    def decide(cls, config: ExperimentConfig, root: Path) -> "Experiment":
        """Return it as the settings say and the zoos are now.

        Raises:
            NotAZoo, IncompleteZoo, CorruptShard: a zoo cannot be read, or is still in work.
            ConfigError: zoos cannot be split so, or lack a property, or it is constant or missing.
            TooFewNetworks: a part has none.
        """
        zoos = open_zoos(config, root)
        found = read_properties(zoos, config.properties, root=root)
        chosen = _choose(config, zoos)
        kept, left_out = _without_missing(config, zoos, found, chosen)
        parts = {name: _networks(zoos, kept, name, found=found) for name in PARTS}
        origin = Origin(
            zoos=tuple(
                ZooFacts(zoo.name, zoo.fingerprint, zoo.layout.digest, architecture_of(zoo))
                for zoo in zoos
            ),
            properties=config.properties,
            images=tuple(one.images for one in found),
            counts={name: len(part.values_NP) for name, part in parts.items()},
            left_out=left_out,
            digest=_digest(parts),
            start=digest_of(config),
        )
        _refuse_few(config, origin, zoos, parts=parts)
        for name in ("train", "test"):
            _refuse_constant(parts[name].values_NP, config.properties, part=name)
        return cls(zoos, origin, parts)

    @classmethod
    def read(cls, folder: Path, root: Path) -> "Experiment":
        """Return one that was begun.

        Raises:
            RunConflict: a zoo is no longer what it was.
        """
        origin = Origin.read(folder)
        zoos = tuple(Zoo.open(root / "zoos" / one.name) for one in origin.zoos)
        for zoo, one in zip(zoos, origin.zoos, strict=True):
            _refuse_other_zoo(folder, one, zoo)
        return cls(zoos, origin, _read_parts(folder, len(zoos)))

    def write(self, folder: Path) -> None:
        """Write its files, the one by which it is known last."""
        distance.save(folder, distance.measure(self.examples("train"), self.examples("val")))
        test = self.examples("test")
        found = luck.draw_luck(test.properties, test.values_NP, sources=test.sources)
        luck.save(folder, found)
        arrays = {f"{name}_values": part.values_NP for name, part in self.parts.items()}
        for name, part in self.parts.items():
            arrays |= {f"{name}_{index}": rows_K for index, rows_K in enumerate(part.rows)}
            arrays |= {f"{name}_network_{i}": own_K for i, own_K in enumerate(part.network)}
        with replacing(folder / NETWORKS) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
        write_json(folder / FILE, asdict(self.origin))

    def examples(self, name: str) -> Examples:
        """Return the networks of a part."""
        part = self.parts[name]
        sources = [(zoo, rows) for zoo, rows in zip(self.zoos, part.rows, strict=True) if len(rows)]
        return Examples(sources, self.origin.properties, part.values_NP)


def read_truth(folder: Path) -> Truth:
    """Return the held-out networks of an experiment that was begun; its zoos may be gone."""
    origin = Origin.read(folder)
    parts = _read_parts(folder, len(origin.zoos))
    part = parts["test"]
    counts = [len(rows) for rows in part.rows]
    return Truth(
        properties=origin.properties,
        values_NP=part.values_NP,
        val_values_VP=parts["val"].values_NP,
        network_N=_numbered(part.network),
        zoo_N=np.repeat([one.name for one in origin.zoos], counts),
        architecture_N=np.repeat([one.architecture for one in origin.zoos], counts),
        images_P=origin.images,
        luck=luck.load(folder),
    )


def _numbered(network: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return a number for each row, the same for rows of one network of one zoo, int64."""
    pairs_N2 = np.concatenate(
        [np.stack([np.full_like(own_K, zoo), own_K], 1) for zoo, own_K in enumerate(network)]
    )
    return np.unique(pairs_N2, axis=0, return_inverse=True)[1].ravel()


def _read_parts(folder: Path, num_zoos: int) -> dict[str, Networks]:
    with reading_arrays(folder / NETWORKS), np.load(folder / NETWORKS) as file:
        return {
            name: Networks(
                tuple(file[f"{name}_{index}"] for index in range(num_zoos)),
                tuple(file[f"{name}_network_{index}"] for index in range(num_zoos)),
                file[f"{name}_values"],
            )
            for name in PARTS
        }


def open_zoos(config: ExperimentConfig, root: Path) -> tuple[Zoo, ...]:
    """Return the zoos of an experiment, with those that manifests name.

    Raises:
        NotAZoo, IncompleteZoo, CorruptShard: one cannot be read, or is still in work.
        ConfigError: one is named twice.
    """
    names = zoos_named(root / "zoos", config.zoos)
    if len(set(names)) < len(names):
        raise ConfigError(f"zoos = {list(config.zoos)} name {', '.join(names)}: one is named twice")
    return tuple(Zoo.open(root / "zoos" / name) for name in names)


def _refuse_other_zoo(folder: Path, begun: ZooFacts, zoo: Zoo) -> None:
    """Raise `RunConflict` where a zoo has other networks than an experiment was begun with."""
    if zoo.fingerprint != begun.fingerprint:
        raise RunConflict(
            f"{folder} was begun with a zoo {begun.name} of fingerprint {begun.fingerprint}, which "
            f"now has {zoo.fingerprint}: give another --name, or remove the folder"
        )


def _choose(config: ExperimentConfig, zoos: tuple[Zoo, ...]) -> list[dict[str, np.ndarray]]:
    """Return, of each zoo, the rows of each part."""
    takes_all = {"last": (), "learn_all": ("train",), "all": PARTS}[config.epochs]
    all_parts = parts_of(config.split, zoos, seed=config.seed)
    chosen = []
    for zoo, part_N in zip(zoos, all_parts, strict=True):
        every, last = zoo.rows(), zoo.rows(epoch="last")
        rows = {name: every if name in takes_all else last for name in PARTS}
        chosen.append({name: rows[name][part_N[rows[name]] == name] for name in PARTS})
    return chosen


def _without_missing(
    config: ExperimentConfig,
    zoos: tuple[Zoo, ...],
    found: list[Property],
    chosen: list[dict[str, np.ndarray]],
) -> tuple[list[dict[str, np.ndarray]], int]:
    """Return the chosen rows whose properties are all known, and how many others there are."""
    kept, total = [], 0
    for index, (zoo, parts) in enumerate(zip(zoos, chosen, strict=True)):
        bad = {one.name: ~np.isfinite(one.values[index]) for one in found}
        asked = np.concatenate(list(parts.values()))
        for name, bad_N in bad.items():
            if (num := int(bad_N[asked].sum())) and config.missing == "refuse":
                first = asked[bad_N[asked]].min()
                raise ConfigError(
                    f"{name} of {num} of the {len(asked)} networks of {zoo.path} is no number "
                    f"(first: row {first}): measure it with dwf measure, or leave "
                    "these networks out with --missing leave_out"
                )
        any_N = np.any(list(bad.values()), axis=0)
        total += int(any_N[asked].sum())
        kept.append({name: rows[~any_N[rows]] for name, rows in parts.items()})
    return kept, total


def _networks(
    zoos: tuple[Zoo, ...], kept: list[dict[str, np.ndarray]], name: str, *, found: list[Property]
) -> Networks:
    rows = tuple(parts[name] for parts in kept)
    network = tuple(
        rows_K if zoo.is_one_network else zoo.columns["network"][rows_K].astype(np.int64)
        for zoo, rows_K in zip(zoos, rows, strict=True)
    )
    columns = [
        np.concatenate(
            [values_N[rows_K] for values_N, rows_K in zip(one.values, rows, strict=True)]
        )
        for one in found
    ]
    return Networks(rows, network, np.stack(columns, axis=1))


def _digest(parts: dict[str, Networks]) -> str:
    digest = hashlib.sha256()
    for part in parts.values():
        for array in (*part.rows, part.values_NP):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _refuse_few(
    config: ExperimentConfig, origin: Origin, zoos: tuple[Zoo, ...], *, parts: dict[str, Networks]
) -> None:
    counts = {name: part.count for name, part in parts.items()}
    for name, least in {"train": 2, "val": 1, "test": LEAST}.items():
        if counts[name] < least:
            left = f", {origin.left_out} were left out" if origin.left_out else ""
            raise TooFewNetworks(
                f"{', '.join(str(zoo.path) for zoo in zoos)} split by {config.split.by}: "
                f"{counts[name]} networks for {name}, at least {least} expected (train, val, test "
                f"are {', '.join(map(str, counts.values()))}{left}): set another split, or "
                "train a larger zoo"
            )


def _refuse_constant(values_NP: np.ndarray, properties: tuple[str, ...], *, part: str) -> None:
    for name, values_N in zip(properties, values_NP.T, strict=True):
        if np.ptp(values_N) == 0:
            raise ConfigError(
                f"properties: {name} is {values_N[0]:g} of all {len(values_N)} networks for "
                f"{part}, so nothing is to be told: leave it out, or take a zoo in which it differs"
            )
