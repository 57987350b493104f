"""Features of the weights of networks: statistics of their tensors, norms of their layers.

Statistics are those of Unterthiner et al. (arXiv 2002.11448, section 4): mean, variance and the
quantiles 0, 25, 50, 75 and 100 % of each layer's weights, and of its biases.

Networks of several layouts lie side by side by `Place`: the third convolution of one network stands
with the third of another, however wide they are, and the second normalisation with the second. What
a network does not have is NaN.

Shape suffixes: N networks, B networks of a block, D numbers of a network, M numbers of a tensor, S
places, F features.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dwf.errors import ShapeMismatch
from dwf.predictors.heads import stop_if_asked
from dwf.zoo.layout import Entry, Layout
from dwf.zoo.moments import Sources, count_networks

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
STATISTICS = ("mean", "variance", *(f"quantile_{100 * q:.0f}" for q in QUANTILES))
_BLOCK_NUMBERS = 2**18  # of a tensor, looked at at once: they stay in a core's cache
_STREAM_BYTES = 8 * 2**20


@dataclass(frozen=True, order=True)
class Place:
    """Place of tensors, or of layers, that stand for each other in networks of several layouts."""

    is_norm: bool
    """Whether it is of a normalisation; these are counted by themselves."""
    number: int
    """Layer, counted from the inputs."""
    leaf: str = ""
    """Name of the tensor within its layer; of a layer as a whole none."""

    def __str__(self) -> str:
        return f"{'norm' if self.is_norm else 'layer'} {self.number} {self.leaf}".strip()


WHOLE = Place(False, -1, leaf="network")
"""Place of what is of a network as a whole."""


def tensors_of(layout: Layout) -> dict[Place, list[Entry]]:
    """Return the tensor at each place, in the order of a row; constants have none."""
    return {
        Place(place.is_norm, place.number, entry.name.rpartition(".")[2]): [entry]
        for place, entries in layers_of(layout).items()
        for entry in entries
    }


def layers_of(layout: Layout) -> dict[Place, list[Entry]]:
    """Return the tensors of each layer, in the order of a row; constants are of none."""
    owners: tuple[list[str], list[str]] = ([], [])
    layers: dict[Place, list[Entry]] = {}
    for entry in layout.entries:
        if entry.role == "constant":
            continue
        is_norm, owner = entry.role in ("norm", "buffer"), entry.name.rpartition(".")[0]
        if owner not in owners[is_norm]:
            owners[is_norm].append(owner)
        layers.setdefault(Place(is_norm, owners[is_norm].index(owner)), []).append(entry)
    return layers


def statistics(weights_ND: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the statistics of each tensor that is no constant, in the order of a row.

    Args:
        weights_ND: float32, networks of the layout.
        layout: which numbers are which tensor.

    Returns:
        features_NF, float64: of each tensor `STATISTICS`; the variance divided by n, quantiles
        between two numbers interpolated.

    Raises:
        ShapeMismatch: rows of another length.
    """
    _refuse_other_rows(weights_ND, layout)
    entries = [entry for entry in layout.entries if entry.role != "constant"]
    out_NSQ = np.empty((len(weights_ND), len(entries), len(STATISTICS)))
    for place, entry in enumerate(entries):
        step = max(1, _BLOCK_NUMBERS // max(entry.size, 1))
        for start in range(0, len(weights_ND), step):
            part = slice(start, start + step)
            out_NSQ[part, place] = _statistics(weights_ND[part, entry.offset : entry.stop])
    return out_NSQ.reshape(len(weights_ND), -1)


def _statistics(numbers_BM: np.ndarray) -> np.ndarray:
    """Return STATISTICS of one tensor of some networks, float64."""
    if not numbers_BM.shape[1]:
        return np.full((len(numbers_BM), len(STATISTICS)), np.nan)
    # Sorted first: then no order of units changes the last bit of a sum. NumPy sorts float32 by
    # vector instructions, in half the time of a partition at the quantiles.
    sorted_BM = np.sort(numbers_BM, axis=1).astype(np.float64)
    mean_B = sorted_BM.mean(1)
    at = np.array(QUANTILES) * (sorted_BM.shape[1] - 1)
    low = np.floor(at).astype(int)
    low_BQ, high_BQ = sorted_BM[:, low], sorted_BM[:, np.ceil(at).astype(int)]
    quantile_BQ = low_BQ + (high_BQ - low_BQ) * (at - low)
    sorted_BM -= mean_B[:, None]
    variance_B = np.square(sorted_BM, out=sorted_BM).mean(1)
    return np.column_stack([mean_B, variance_B, quantile_BQ])


def norms(weights_ND: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the Euclidean norm of each layer's learnt numbers, and of all, float64.

    Args:
        weights_ND: float32, networks of the layout.
        layout: which numbers are which tensor.

    Returns:
        features_NF: one norm for each of `layers_of`, and last that of the network.

    Raises:
        ShapeMismatch: rows of another length.
    """
    _refuse_other_rows(weights_ND, layout)
    squares = []
    for entries in layers_of(layout).values():
        sums_N = np.zeros(len(weights_ND))
        for entry in (entry for entry in entries if entry.is_learnt):
            sums_N += _sum_of_squares(weights_ND[:, entry.offset : entry.stop])
        squares.append(sums_N)
    return np.sqrt(np.column_stack([*squares, np.sum(squares, axis=0)]))


def _sum_of_squares(numbers_NM: np.ndarray) -> np.ndarray:
    """Return the sums, float64; sorted first, so that no order of units changes the last bit."""
    out_N = np.empty(len(numbers_NM))
    step = max(1, _BLOCK_NUMBERS // max(numbers_NM.shape[1], 1))
    for start in range(0, len(numbers_NM), step):
        sorted_BM = np.sort(np.abs(numbers_NM[start : start + step]), axis=1).astype(np.float64)
        out_N[start : start + step] = np.square(sorted_BM, out=sorted_BM).sum(1)
    return out_N


def _refuse_other_rows(weights_ND: np.ndarray, layout: Layout) -> None:
    if weights_ND.shape[1] != layout.size:
        raise ShapeMismatch(
            f"rows of {weights_ND.shape[1]} numbers are not of this layout, which has {layout.size}"
        )


class Columns:
    """Features of places, for networks of one layout or of several, as columns of one table.

    Args:
        layouts: places of each layout that was learnt from, in the order of a row.
        num_each: features of a place.
    """

    def __init__(self, layouts: Iterable[Sequence[Place]], num_each: int):
        self.layouts = list(dict.fromkeys(tuple(places) for places in layouts))
        self.num_each = num_each
        self.places = sorted(set().union(*self.layouts))
        """S: all places, in the order of the columns."""

    @property
    def is_mixed(self) -> bool:
        """Whether layouts have different places: then columns say of each place who has it."""
        return len(self.layouts) > 1

    @property
    def size(self) -> int:
        """F: features of a place, and if mixed, whether a network has it."""
        return len(self.places) * (self.num_each + self.is_mixed)

    def lay(self, features_BF: np.ndarray, places: Sequence[Place]) -> np.ndarray:
        """Return features of networks of one layout as rows of the table, NaN where they have none.

        Args:
            features_BF: `num_each` of each place, one place after the other.
            places: of their layout.

        Raises:
            ShapeMismatch: places that no layout had which was learnt from.
        """
        self._refuse_unknown(places)
        table_BSQ = np.full((len(features_BF), len(self.places), self.num_each), np.nan)
        at = [self.places.index(place) for place in places]
        table_BSQ[:, at] = features_BF.reshape(len(features_BF), len(places), self.num_each)
        table_BF = table_BSQ.reshape(len(features_BF), -1)
        if not self.is_mixed:
            return table_BF
        has_S = np.isin(np.arange(len(self.places)), at).astype(np.float64)
        return np.hstack([table_BF, np.tile(has_S, (len(features_BF), 1))])

    def _refuse_unknown(self, places: Sequence[Place]) -> None:
        known = set(self.places)
        if unknown := [place for place in places if place not in known]:
            raise ShapeMismatch(
                f"the networks have {unknown[0]}, which none had that this predictor learnt from: "
                "fit it to networks of this architecture too, by a zoo of them among its zoos"
            )
        missing = [place for place in self.places if place not in set(places)]
        if missing and not self.is_mixed:
            raise ShapeMismatch(
                f"the networks lack {missing[0]}, which all had that this predictor learnt from: "
                "fit it to networks of this architecture too, by a zoo of them among its zoos"
            )

    def to_json(self) -> dict[str, list[list[list[bool | int | str]]] | int]:
        """Return plain data; `from_json` is the inverse."""
        told = [[[p.is_norm, p.number, p.leaf] for p in places] for places in self.layouts]
        return {"layouts": told, "num_each": self.num_each}

    @classmethod
    def from_json(cls, told: dict[str, list[list[list[bool | int | str]]] | int]) -> "Columns":
        """Return what `to_json` wrote."""
        layouts = [
            [Place(is_norm, number, leaf=leaf) for is_norm, number, leaf in places]
            for places in told["layouts"]
        ]
        return cls(layouts, told["num_each"])


Compute = Callable[[np.ndarray, Layout], np.ndarray]
"""Function from weights_BD and their layout to features_BF."""
Places = Callable[[Layout], Iterable[Place]]
"""Function from a layout to its places, in the order of their features."""


def stream_features(
    sources: Sources, compute: Compute, *, columns: Columns, places_of: Places
) -> np.ndarray:
    """Return features_NF of networks of zoos, read block by block.

    Args:
        sources: the networks.
        compute: gives `columns.num_each` features of each place.
        columns: where they stand.
        places_of: gives the places of a layout.

    Raises:
        ShapeMismatch: a layout with places that the columns do not know.
        CorruptShard: a row does not match its checksum.
    """
    out_NF, at = np.empty((count_networks(sources), columns.size)), 0
    for zoo, rows in sources:
        places = list(places_of(zoo.layout))
        for rows_B, weights_BD in zoo.stream(rows, max_bytes=_STREAM_BYTES):
            stop_if_asked()
            features_BF = compute(weights_BD, zoo.layout)
            out_NF[at : at + len(rows_B)] = columns.lay(features_BF, places)
            at += len(rows_B)
    return out_NF
