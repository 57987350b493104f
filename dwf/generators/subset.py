"""A part of a zoo's training networks: what a generator learns from where that is not all of them.

Shape suffixes: N networks of the training split.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.plain import Json
from dwf.randomness import numpy_stream
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class Subset:
    """Which training networks are learnt from; of several zoos, as many of each."""

    networks: int | None = None
    """How many networks; None of a zoo of one network."""
    by: Literal["first", "random"] = "first"
    """Whether they are the first, or drawn."""
    seed: int | None = None
    """Seed of the draw; None of the first."""
    rows: int | None = None
    """How many rows of a zoo of one network, the first of those to train on; None of others."""

    @classmethod
    def of(cls, config: GeneratorConfig) -> "Subset | None":
        """Return what a generator's settings ask for; None: it learns from all."""
        if config.rows is not None:
            return cls(rows=config.rows)
        if config.networks is None:
            return None
        seed = config.seed if config.networks_by == "random" else None
        return cls(config.networks, config.networks_by, seed=seed)

    @classmethod
    def read(cls, told: dict[str, Json]) -> "Subset | None":
        """Return what an origin or a provenance tells under `subset`; None: nothing."""
        return cls(**told["subset"]) if told.get("subset") else None

    def to_json(self) -> dict[str, Json]:
        """Return plain data, without what does not apply; `read` takes it under `subset`."""
        if self.rows is not None:
            return {"rows": self.rows}
        drawn = {} if self.seed is None else {"seed": self.seed}
        return {"networks": self.networks, "by": self.by} | drawn

    @property
    def label(self) -> str:
        """Description of them, in few words."""
        if self.rows is not None:
            return f"first {self.rows} rows"
        if self.seed is not None:
            return f"random {self.networks}, seed {self.seed}"
        return f"first {self.networks}"

    def rows_of(self, zoo: Zoo) -> np.ndarray:
        """Return their rows at the last epoch, in order; a draw of fewer is a part of one of more.

        Raises:
            ConfigError: the zoo has fewer, or is of one network where networks are asked for, or of
                several where rows are.
        """
        rows_N = zoo.rows("train", "last")
        self._refuse(zoo, len(rows_N))
        if self.seed is None:
            return rows_N[: self.rows or self.networks]
        order_N = numpy_stream(self.seed, "networks learnt from").permutation(len(rows_N))
        return rows_N[np.sort(order_N[: self.networks])]

    def among(self, zoo: Zoo, rows: np.ndarray) -> np.ndarray:
        """Return those of some rows, at whatever epochs, that are of these networks."""
        mine = self.rows_of(zoo)
        if self.rows is not None:
            return rows[np.isin(rows, mine)]
        network = zoo.columns["network"]
        return rows[np.isin(network[rows], network[mine])]

    def _refuse(self, zoo: Zoo, num: int) -> None:
        if self.rows is None and zoo.is_one_network:
            raise ConfigError(
                f"networks = {self.networks}: {zoo.path} is one network, whose rows are steps of "
                f"its training: leave networks out and give rows, up to {num} of its training rows"
            )
        if self.rows is not None and not zoo.is_one_network:
            raise ConfigError(
                f"rows = {self.rows}: {zoo.path} has {num} training networks, and is learnt from "
                "by network: leave rows out and give networks"
            )
        asked, words = self.rows or self.networks, "rows" if self.rows else "networks"
        if asked > num:
            raise ConfigError(
                f"{words} = {asked}: {zoo.path} has {num} training {words}: give at most so many, "
                f"or leave {words} out to learn from all"
            )


def subset_of(samples: Zoo) -> Subset | None:
    """Return which training networks the generator of samples learnt from; None: all."""
    told = samples.facts.sampled
    return None if told is None else Subset.read(vars(told))


def rows_learnt_from(zoo: Zoo, samples: Zoo) -> np.ndarray:
    """Return the training rows, at the last epoch, that the generator of samples learnt from.

    Args:
        zoo: the zoo that it learnt from, of the samples' architecture.
        samples: a zoo of generated networks.

    Raises:
        ConfigError: see `Subset.rows_of`.
    """
    subset = subset_of(samples)
    return zoo.rows("train", "last") if subset is None else subset.rows_of(zoo)
