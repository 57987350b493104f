"""Directions and functions in which units are coded.

Rows of the first layer are coded in the eigenbasis of what it takes in, units of later hidden
layers in the principal functions of the layer over the zoo: eigenvectors of the sum of f f^T over
all units, f a unit's pre-activation at the read places, less its mean.

Shape suffixes: P read places of all inputs, I weights of a unit, U units, N networks, K functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dwf.codecs.functions.chain import Chain, Step, read
from dwf.errors import ConfigError, TooFewNetworks
from dwf.randomness import numpy_stream
from dwf.ranks import world
from dwf.zoo.moments import Sources, count_networks, parts_of

MOST_NETWORKS = 2048
"""Networks, drawn by the seed, from which principal functions are found."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bases:
    """Directions of the inputs, and principal functions of later hidden layers."""

    mean_I: torch.Tensor
    """Mean of what the first layer takes in."""
    basis_II: torch.Tensor
    """Its directions as columns, orthonormal, those of most variance first."""
    energy_I: torch.Tensor
    """Variance along each."""
    rows: tuple[torch.Tensor, ...]
    """Where each hidden layer is read, int64_P."""
    functions: tuple[torch.Tensor, ...]
    """functions_PK of each hidden layer but the first, orthonormal columns."""

    def to_arrays(self) -> Arrays:
        """Return named arrays, from which `of` makes it again."""
        named = {"mean_I": self.mean_I, "basis_II": self.basis_II, "energy_I": self.energy_I}
        named |= {f"rows_{i}": rows_P for i, rows_P in enumerate(self.rows)}
        named |= {f"functions_{i}": each for i, each in enumerate(self.functions, 1)}
        return {name: tensor.numpy() for name, tensor in named.items()}

    @classmethod
    def of(cls, arrays: Arrays) -> "Bases":
        """Return what `to_arrays` made arrays of."""
        num = sum(name.startswith("rows_") for name in arrays)
        return cls(
            *(torch.from_numpy(arrays[name]) for name in ("mean_I", "basis_II", "energy_I")),
            rows=tuple(torch.from_numpy(arrays[f"rows_{i}"]) for i in range(num)),
            functions=tuple(torch.from_numpy(arrays[f"functions_{i}"]) for i in range(1, num)),
        )


def input_directions(chain: Chain, rows_P: torch.Tensor) -> tuple[np.ndarray, ...]:
    """Return mean_I, basis_II and energy_I of what the first layer takes in, float64."""
    taken_PI = read(chain.taken(0, chain.inputs_MX), rows_P)[0].double().numpy()
    mean_I = taken_PI.mean(0)
    centred_PI = taken_PI - mean_I
    energy_I, basis_II = np.linalg.eigh(centred_PI.T @ centred_PI / len(centred_PI))
    return mean_I, _signed(basis_II[:, ::-1]), energy_I[::-1].clip(min=0)


def leading(energy_I: np.ndarray, share: float) -> int:
    """Return how many leading directions hold a share of the energy, at least 1; of 1 all."""
    if share >= 1 or not energy_I.sum():
        return len(energy_I)
    reached = np.cumsum(energy_I) >= share * energy_I.sum()
    return int(reached.argmax()) + 1


def sum_products(
    chain: Chain, sources: Sources, *, rows: Sequence[torch.Tensor]
) -> list[np.ndarray]:
    """Return of each hidden layer but the first the sum of f f^T over its units, float64_PP.

    Ranks call it together and share the networks.
    """
    parts = parts_of(sources)

    def gather(part: int) -> list[np.ndarray]:
        sums = [np.zeros((len(rows_P),) * 2) for rows_P in rows[1:]]
        for zoo, rows_B in parts[part]:
            for some_ND in torch.from_numpy(zoo.read(rows_B)).split(chain.block_size):
                functions = _functions(chain, some_ND, rows=rows)
                for total_PP, each_FP in zip(sums, functions, strict=True):
                    total_PP += (each_FP.T @ each_FP).double().numpy()
        return sums

    totals = [np.zeros((len(rows_P),) * 2) for rows_P in rows[1:]]
    for sums in world().in_order(len(parts), gather):
        for total_PP, each_PP in zip(totals, sums, strict=True):
            total_PP += each_PP
    return totals


@torch.no_grad()
def _functions(
    chain: Chain, weights_ND: torch.Tensor, *, rows: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return each later hidden layer's functions, [N x U, P]."""
    found = []

    def note(number: int, step: Step) -> None:
        if 0 < number < len(rows):
            given_NPU = read(step.given_NMLU, rows[number])
            found.append((given_NPU - given_NPU.mean(1, keepdim=True)).mT.flatten(0, 1))

    chain.walk(weights_ND, note)
    return found


def principal_functions(total_PP: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Return the leading functions_PK, and the share of all functions' energy that they hold."""
    energy_P, vectors_PP = np.linalg.eigh(total_PP)
    total = energy_P.sum()
    share = float(energy_P[-count:].sum() / total) if total else 1.0
    return _signed(vectors_PP[:, ::-1][:, :count]), share


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Return columns with the largest number of each made positive: a basis has no own signs."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    return np.ascontiguousarray(vectors * np.where(largest < 0, -1.0, 1.0))


def some_networks(sources: Sources, *, seed: int) -> Sources:
    """Return at most `MOST_NETWORKS` of the networks, drawn by the seed, in order."""
    total = count_networks(sources)
    if total <= MOST_NETWORKS:
        return sources
    chosen = np.sort(numpy_stream(seed, "functions").permutation(total)[:MOST_NETWORKS])
    some, at = [], 0
    for zoo, rows in sources:
        mine = chosen[(chosen >= at) & (chosen < at + len(rows))] - at
        some.append((zoo, rows[mine]))
        at += len(rows)
    return [source for source in some if len(source[1])]


def refuse_few_functions(
    count: int, learnt: Sequence[tuple[Chain, Sources]], *, places: Sequence[int]
) -> None:
    """Refuse more principal functions than units or places span.

    Args:
        count: functions.
        learnt: layers and networks of each architecture.
        places: at how many places each hidden layer is read.

    Raises:
        TooFewNetworks: fewer units over all networks than functions.
        ConfigError: fewer places than functions.
    """
    numbers = [count_networks(sources) for _, sources in learnt]
    for layer in range(1, len(places)):
        units = [chain.layers[layer].units for chain, _ in learnt]
        total = sum(num * each for num, each in zip(numbers, units, strict=True))
        if total < count:
            raise TooFewNetworks(
                f"codec.functions = {count}: {sum(numbers)} networks of "
                f"{' and '.join(map(str, units))} units in a hidden layer span at most {total} "
                "functions: train a larger zoo, or set codec.functions lower"
            )
        if places[layer] <= count:
            raise ConfigError(
                f"codec.functions = {count}: units are read at {places[layer]} places, more are "
                "expected: raise codec.inputs or codec.places"
            )
