"""Arms: where the networks of a fine-tuning come from, decided before any weight is read.

Every network of every arm is the mean of some rows of a zoo, plus noise, or a new initialisation.
Which rows is drawn by named streams, so that a network does not depend on how many others there
are. Network i of `noise` begins from the original that network i of `originals` is, network i of
`nearest` is the original nearest to generated network i, and the averages of an aligned zoo and of
the zoo that it was made of are those of the same networks.

Shape suffixes: B networks of a block, D numbers of one network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.errors import ConfigError, ShapeMismatch
from dwf.evaluation.frames import open_unaligned, refuse_other_frame
from dwf.evaluation.measure import Rows, nearest
from dwf.randomness import numpy_stream
from dwf.transfer.config import FinetuneConfig, Origin
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class Arm:
    """Networks of one origin."""

    family: Origin
    """Kind of origin, see `FAMILIES`."""
    title: str
    """Its name in reports."""
    zoo: str | None
    """Zoo that its networks are made of; None: each is a new initialisation."""
    rows: tuple[tuple[int, ...], ...]
    """Rows of the zoo that each network is the mean of."""
    noise: float = 0.0
    """Noise on each weight, in its standard deviations over the training networks."""

    @property
    def count(self) -> int:
        """N: networks of the arm."""
        return len(self.rows)


@dataclass(frozen=True)
class Pool:
    """Networks that arms are made of."""

    config: FinetuneConfig
    """Settings of the fine-tuning."""
    zoo: Zoo
    """The originals."""
    samples: tuple[Zoo, ...]
    """Generated networks, a zoo for each arm of them."""
    unaligned: Zoo | None
    """Zoo that the zoo was aligned from; None where it was not, or no arm asks for it."""

    @property
    def training(self) -> np.ndarray:
        """Rows of the training networks, int64."""
        return self.zoo.rows("train", "last")

    def drawn(self, rows: np.ndarray, *key: str) -> np.ndarray:
        """Return at most `count` of some rows, in an order drawn by a named stream."""
        order = numpy_stream(self.config.seed, "arm", *key).permutation(len(rows))
        return rows[order[: self.config.count]]


def open_pool(config: FinetuneConfig, root: Path) -> Pool:
    """Open the zoos of a fine-tuning.

    Raises:
        ConfigError: samples were learnt from another zoo, or the zoo before alignment is gone or
            is another one.
        ShapeMismatch: samples of another layout than the zoo's.
    """
    zoo = Zoo.open(root / "zoos" / config.zoo)
    samples = tuple(Zoo.open(root / "zoos" / name) for name in config.samples)
    for each in samples:
        if each.layout.digest != zoo.layout.digest:
            cure = "draw them without a new head (`head: new` here gives one)"
            if _is_new_architecture(each):
                cure = "train a zoo of their architecture from scratch, and give it as --zoo"
            raise ShapeMismatch(
                f"{each.path}: its networks have {each.layout.size} weights in layout "
                f"{each.layout.digest}, those of {zoo.path} {zoo.layout.size} in "
                f"{zoo.layout.digest}: {cure}"
            )
    refuse_other_frame(zoo, [each for each in samples if not _is_new_architecture(each)])
    asked = "average_unaligned" in config.arms
    unaligned = open_unaligned(zoo, wanted_by="average_unaligned") if asked else None
    return Pool(config, zoo, samples=samples, unaligned=unaligned)


def _is_new_architecture(samples: Zoo) -> bool:
    """Whether a generator drew them that did not learn from their architecture: of no zoo's frame.

    They can be held against any zoo of their architecture.
    """
    sampled = samples.facts.sampled
    return sampled is not None and sampled.architecture is not None


def arms_of(pool: Pool) -> tuple[Arm, ...]:
    """Return the arms that the settings ask for, in the order of `FAMILIES`.

    Raises:
        ConfigError: there is no network to begin from.
    """
    asked = [family for name, family in FAMILIES.items() if name in pool.config.arms]
    arms = tuple(arm for family in asked for arm in family.arms(pool) if arm.count)
    if not arms:
        raise ConfigError(
            f"arms = {list(pool.config.arms)}: zoo {pool.zoo.name} has no network for any of them"
        )
    return arms


def _singles(rows: Sequence[int] | np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple((int(row),) for row in rows)


def _random(pool: Pool) -> list[Arm]:
    return [Arm("random", "random initialisation", None, ((),) * pool.config.count)]


def _originals(pool: Pool) -> list[Arm]:
    rows = pool.drawn(pool.training, "originals")
    return [Arm("originals", "originals", pool.zoo.name, _singles(rows))]


def _held_out(pool: Pool) -> list[Arm]:
    rows = np.concatenate([pool.zoo.rows(split, "last") for split in ("test", "val")])
    chosen = pool.drawn(rows, "held out")
    return [Arm("held_out", "held-out originals", pool.zoo.name, _singles(chosen))]


def _generated(pool: Pool) -> list[Arm]:
    return [
        Arm("generated", f"samples {zoo.name}", zoo.name, _singles(_sampled(pool, zoo)))
        for zoo in pool.samples
    ]


def _sampled(pool: Pool, zoo: Zoo) -> np.ndarray:
    return pool.drawn(np.arange(len(zoo)), "samples")


def _nearest(pool: Pool) -> list[Arm]:
    found, training = [], Rows(pool.zoo, pool.training, learnt=True)
    for zoo in pool.samples:
        places = []
        for _, weights_BD in Rows(zoo, _sampled(pool, zoo), learnt=True):
            places += nearest(weights_BD, training)[1].tolist()
        rows = _singles(pool.training[np.array(places, np.int64)])
        found.append(Arm("nearest", f"nearest originals of {zoo.name}", pool.zoo.name, rows))
    return found


def _noise(pool: Pool) -> list[Arm]:
    rows = _singles(pool.drawn(pool.training, "originals"))
    return [
        Arm("noise", f"an original + noise of {scale:g} std", pool.zoo.name, rows, scale)
        for scale in pool.config.noise
    ]


def _average(pool: Pool) -> list[Arm]:
    return _averages("average", pool, pool.zoo, "")


def _average_unaligned(pool: Pool) -> list[Arm]:
    if pool.unaligned is None:
        return []
    return _averages("average_unaligned", pool, pool.unaligned, ", unaligned")


def _averages(family: Origin, pool: Pool, zoo: Zoo, words: str) -> list[Arm]:
    found, training = [], zoo.rows("train", "last")
    for k in (k for k in pool.config.averages if k <= len(training)):
        streams = (
            numpy_stream(pool.config.seed, "average", k, i) for i in range(pool.config.count)
        )
        rows = tuple(
            tuple(training[stream.choice(len(training), k, replace=False)].tolist())
            for stream in streams
        )
        found.append(Arm(family, f"average of {k}{words}", zoo.name, rows))
    return found


@dataclass(frozen=True)
class Family:
    """Arms that a reader sees as one kind, and how figures show them."""

    colour: str
    """That of text, `#1d2430`, is light on a dark page."""
    line: str
    """Style of its lines, as matplotlib has it."""
    arms: Callable[[Pool], list[Arm]]


FAMILIES: dict[Origin, Family] = {
    "random": Family("#777777", ":", _random),
    "originals": Family("#1d2430", "-", _originals),
    "held_out": Family("#0072B2", "-", _held_out),
    "generated": Family("#D55E00", "-", _generated),
    "nearest": Family("#0072B2", "--", _nearest),
    "noise": Family("#56B4E9", "-", _noise),
    "average": Family("#009E73", "-", _average),
    "average_unaligned": Family("#009E73", ":", _average_unaligned),
}
"""The origins that are compared, in order: a new one is a function and a line here, and its name in
`Origin`."""
