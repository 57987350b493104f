"""How much closer an alignment brought the networks of a zoo.

Shape suffixes: P pairs of networks, E networks that are in a pair, D numbers of one network.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from dwf.datasets.dataset import Dataset
from dwf.files import read_json
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import has_batchnorm, score_networks
from dwf.networks.side_by_side import computed_together, side_by_side
from dwf.plain import Json
from dwf.randomness import numpy_stream
from dwf.zoo.store import Zoo

# Networks scored at once, and training images that BatchNorm is re-estimated on.
_AT_ONCE, _STATISTICS_IMAGES = 64, 500

_LINES = {
    "l2_to_reference": "L2 distance to the reference",
    "cosine_to_reference": "matched inner product with the reference (cosine)",
    "pairwise_l2": "L2 distance of a pair",
    "loss_barrier": "loss barrier at a pair's midpoint (nats)",
}


def compare_pairs(zoo: Zoo, aligned: Zoo, *, num_pairs: int, seed: int) -> dict[str, Json]:
    """Measure the same pairs of networks before and after an alignment.

    The loss barrier of a pair is the loss of the midpoint of its weights minus the mean loss of
    its two ends, on validation images. A midpoint's statistics of BatchNorm are re-estimated on
    training images: the mean of those at the ends would make its variances collapse (Jordan et
    al., REPAIR, ICLR 2023, arXiv 2211.08403, section 3). So are those of drawn networks.

    Args:
        zoo: the zoo that was aligned.
        aligned: the aligned zoo; the same rows.
        num_pairs: how many pairs are drawn, from the last epochs of all networks; all pairs where
            there are not more.
        seed: seed of the draw.

    Returns:
        `pairs` (how many), `pairwise_l2` (of what is learnt) and `loss_barrier`: mean over pairs
        `before` and `after`.
    """
    rows = zoo.rows(epoch="last")
    pairs_P2 = rows[_draw_pairs(len(rows), num_pairs, seed)]
    if not len(pairs_P2):
        return {"pairs": 0}
    ends_E, place_P2 = np.unique(pairs_P2, return_inverse=True)
    report: dict[str, Json] = {"pairs": len(pairs_P2), "pairwise_l2": {}}
    if not zoo.facts.network.is_known:  # whose loss nobody can measure
        for when, of in (("before", zoo), ("after", aligned)):
            distance = np.concatenate([_distances(of, part) for part in _parts(pairs_P2)])
            report["pairwise_l2"][when] = float(distance.mean())
        return report
    data = zoo.load_data()
    ends = (zoo.read(part) for part in _parts(ends_E))
    end_losses_E = _losses(zoo, data, ends, _are_drawn(zoo))
    end_losses_P = end_losses_E[place_P2.reshape(-1, 2)].mean(1)
    report["loss_barrier"] = {}
    for when, of in (("before", zoo), ("after", aligned)):
        distance = np.concatenate([_distances(of, part) for part in _parts(pairs_P2)])
        middle_P = _losses(zoo, data, (_midpoints(of, part) for part in _parts(pairs_P2)), True)
        report["pairwise_l2"][when] = float(distance.mean())
        report["loss_barrier"][when] = float((middle_P - end_losses_P).mean())
    if np.isnan(report["loss_barrier"]["before"]):  # the recipe holds out no validation images
        del report["loss_barrier"]
    return report


def read_report(zoo: Zoo) -> dict[str, Json]:
    """Return the report of a finished alignment."""
    return read_json(zoo.path / "run" / "done.json", keys=("networks", "pairs"))


def print_report(report: dict[str, Json]) -> None:
    """Print a report as a table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{report['networks']} networks, {report['pairs']} pairs"
    table = Table("mean", "before", "after", title=title)
    for key, words in _LINES.items():
        if key in report:
            table.add_row(words, f"{report[key]['before']:.4f}", f"{report[key]['after']:.4f}")
    Console().print(table)


def _draw_pairs(count: int, num_pairs: int, seed: int) -> np.ndarray:
    """Indices of pairs of two different networks, int64, shape [P, 2]."""
    if count * (count - 1) // 2 <= num_pairs:
        return np.array(list(itertools.combinations(range(count), 2)), np.int64).reshape(-1, 2)
    generator = numpy_stream(seed, "pairs")
    first_P = generator.integers(count, size=num_pairs)
    step_P = generator.integers(1, count, size=num_pairs)
    return np.stack([first_P, (first_P + step_P) % count], 1)


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), _AT_ONCE):
        yield array[start : start + _AT_ONCE]


def _distances(zoo: Zoo, pairs_P2: np.ndarray) -> np.ndarray:
    difference_PD = zoo.read(pairs_P2[:, 0]) - zoo.read(pairs_P2[:, 1])
    return np.linalg.norm(zoo.layout.learnt(difference_PD), axis=1)


def _midpoints(zoo: Zoo, pairs_P2: np.ndarray) -> np.ndarray:
    return (zoo.read(pairs_P2[:, 0]) + zoo.read(pairs_P2[:, 1])) / 2


def _are_drawn(zoo: Zoo) -> bool:
    """Whether running statistics of BatchNorm are not those its networks were trained with."""
    return not np.isin(zoo.columns.get("batchnorm", []), ["trained", "recalibrated"]).all()


def _losses(zoo: Zoo, data: Dataset, parts: Iterator[np.ndarray], anew: bool = False) -> np.ndarray:
    """Losses of networks of a zoo's architecture on validation images.

    With `anew`, statistics of BatchNorm are re-estimated first.
    """
    network = zoo.build_network()
    anew = anew and has_batchnorm(network)
    num_images = min(_STATISTICS_IMAGES, len(data.train))

    def loss(one: nn.Module, weights_ND: np.ndarray) -> np.ndarray:
        state = zoo.layout.unflatten(torch.from_numpy(weights_ND))
        state = recalibrate(one, state, data=data, num_images=num_images) if anew else state
        return score_networks(one, state, data=data, part=data.val).loss_N

    def losses_of(weights_ND: np.ndarray) -> np.ndarray:
        if computed_together(network):
            return loss(network, weights_ND)
        num = len(weights_ND)
        return np.concatenate(
            side_by_side(network, num, compute=lambda one, i: loss(one, weights_ND[i : i + 1]))
        )

    return np.concatenate([losses_of(weights_ND) for weights_ND in parts])
