"""Alignment: weight matching against a plain loop over networks and the published method for ViTs.

Networks are randomly initialised: matching has the most to do where networks begin no closer to the
reference than chance. One thread.

Shape suffixes: N networks, D numbers of one network, U units of a group, F numbers of one unit.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from align_published import match_as_published, match_vit_as_published
from harness import Result, interleave

from dwf.align.groups import Group, permute
from dwf.align.matching import Matcher, match_networks
from dwf.align.symmetry import symmetry_of
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.randomness import seeded
from dwf.zoo.layout import Layout

_CNN3 = CNNConfig(
    (16, 32, 15), (3, 32, 32), pools=2, pool_first=True, activation="gelu", hidden=(20,)
)
_PUBLISHED_ITERATIONS = 10


def run(quick: bool) -> list[Result]:
    """Time matching and permuting of several architectures; `quick` leaves out the slow ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = [_mlps(), _small_cnns()]
        return results if quick else [*results, _resnets_20(), _resnets_18(), _vits()]
    finally:
        torch.set_num_threads(threads)


def _mlps() -> Result:
    zoo = _Zoo(MLPConfig((784, 32, 32, 10)), 100, input_shape=(784,))
    sides = {
        "batched": lambda: zoo.aligned_by(match_networks, start="identity"),
        "loop": lambda: zoo.aligned_by(match_as_published),
        "batches of one": lambda: zoo.aligned_by(_match_in_batches_of_one),
        "batched, from ties": lambda: zoo.aligned_by(match_networks),
    }
    seconds = interleave(sides, repeats=9)
    ours, theirs = (zoo.objective(sides[name]()) for name in ("batched", "loop"))
    ties = zoo.objective(sides["batched, from ties"]())
    return Result(
        f"align 100 MLPs of {zoo.layout.size:,} weights",
        seconds,
        figures={
            "objective / loop's": ours / theirs,
            "objective from ties / loop's": ties / theirs,
        },
        targets={
            "batched (s)": ("<=", 0.2),
            "loop / batched": (">=", 2.5),
            "objective / loop's": (">=", 1 - 1e-6),
            "objective from ties / loop's": (">=", 1.0),
        },
    )


def _small_cnns() -> Result:
    zoo = _Zoo(_CNN3, 100, input_shape=(3, 32, 32))
    sides = {"batched": lambda: zoo.aligned_by(match_networks)}
    result = Result(f"align 100 CNNs of {zoo.layout.size:,} weights", interleave(sides, repeats=9))
    median = sorted(result.seconds["batched"])[4]
    result.figures["milliseconds a network"] = 10 * median
    result.targets["milliseconds a network"] = ("<=", 4.0)
    return result


def _resnets_20() -> Result:
    zoo = _Zoo(CifarResNetConfig(), 100, input_shape=(3, 32, 32))
    few = zoo.first(11)
    seconds = interleave({"batched": lambda: zoo.aligned_by(match_networks)}, repeats=3)
    ours, theirs = (
        few.objective(few.aligned_by(match)) for match in (match_networks, match_as_published)
    )
    return Result(
        f"align 100 ResNet-20 of {zoo.layout.size:,} weights",
        seconds,
        figures={"objective / loop's": ours / theirs},
        targets={"batched (s)": ("<=", 10.0), "objective / loop's": (">=", 1.0)},
    )


def _resnets_18() -> Result:
    zoo = _Zoo(ResNetConfig(), 2, input_shape=(3, 32, 32))
    sides = {
        "ours": lambda: zoo.aligned_by(match_networks),
        "loop": lambda: zoo.aligned_by(match_as_published),
    }
    seconds = interleave(sides, repeats=3)
    ours, theirs = (zoo.objective(run()) for run in sides.values())
    return Result(
        f"align a ResNet-18 of {zoo.layout.size:,} weights",
        seconds,
        figures={"objective / loop's": ours / theirs},
        targets={"loop / ours": (">=", 2.0), "objective / loop's": (">=", 1.0)},
    )


def _vits() -> Result:
    """To convergence with the residual stream, and as many sweeps as published without it."""
    zoo = _Zoo(ViTConfig(), 2, input_shape=(3, 32, 32))
    held = [
        dataclasses.replace(group, members=()) if group.is_stream else group for group in zoo.groups
    ]
    without = dataclasses.replace(zoo, groups=tuple(held))
    ours = Matcher(zoo.layout, zoo.groups, heads_again=True)
    plain = {"start": "identity"}
    ten = Matcher(zoo.layout, without.groups, max_sweeps=_PUBLISHED_ITERATIONS, **plain)
    one = Matcher(zoo.layout, without.groups, max_sweeps=1, **plain)
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: zoo.aligned_by(lambda w_ND, r_D, *_: ours(w_ND, r_D)),
        "published, 10 iterations": lambda: zoo.aligned_by(match_vit_as_published),
        "ours without the stream, 10 sweeps": lambda: zoo.aligned_by(
            lambda w_ND, r_D, *_: ten(w_ND, r_D)
        ),
        "ours without the stream, 1 sweep": lambda: zoo.aligned_by(
            lambda w_ND, r_D, *_: one(w_ND, r_D)
        ),
    }
    seconds = interleave(sides, repeats=3)
    medians = {side: float(np.median(times)) for side, times in seconds.items()}
    published = medians["published, 10 iterations"]
    best, theirs = (zoo.objective(sides[s]()) for s in ("ours", "published, 10 iterations"))
    return Result(
        f"align a ViT-Small of {zoo.layout.size:,} weights",
        seconds,
        figures={
            "objective / published": best / theirs,
            "published / ours, per sweep of 10": published
            / medians["ours without the stream, 10 sweeps"],
            "published / ours, the first sweep": published
            / _PUBLISHED_ITERATIONS
            / medians["ours without the stream, 1 sweep"],
        },
        targets={
            "published, 10 iterations / ours": (">=", 10.0),
            "objective / published": (">=", 1.0),
            "published / ours, per sweep of 10": (">=", 50.0),
        },
    )


@dataclasses.dataclass(frozen=True)
class _Zoo:
    """Networks of one architecture, the first of them the reference."""

    config: object
    count: int
    input_shape: tuple[int, ...]
    layout: Layout = None
    groups: tuple[Group, ...] = ()
    weights_ND: torch.Tensor = None
    reference_D: torch.Tensor = None

    def __post_init__(self):
        if self.layout is not None:
            return
        network = build_network(self.config)
        layout = Layout.of(network)
        rows = []
        for index in range(self.count):
            with seeded(0, "align", index):
                rows.append(layout.flatten(build_network(self.config).state_dict()))
        object.__setattr__(self, "layout", layout)
        object.__setattr__(
            self, "groups", symmetry_of(network, layout, input_shape=self.input_shape)
        )
        object.__setattr__(self, "weights_ND", torch.stack(rows))
        object.__setattr__(self, "reference_D", rows[0])

    def first(self, count: int) -> "_Zoo":
        return dataclasses.replace(self, count=count, weights_ND=self.weights_ND[:count])

    def aligned_by(
        self, match: Callable[..., list[torch.Tensor]], **settings: object
    ) -> torch.Tensor:
        """All networks but the reference, matched to it."""
        others_ND = self.weights_ND if self.count > 50 else self.weights_ND[1:]
        orders = match(others_ND, self.reference_D, self.layout, self.groups, **settings)
        return permute(others_ND, self.layout, groups=self.groups, orders=orders)

    def objective(self, aligned_ND: torch.Tensor) -> float:
        """Matched inner product, running statistics aside."""
        learnt = self.layout.learnt
        return float((learnt(aligned_ND).double() @ learnt(self.reference_D).double()).sum())


def _match_in_batches_of_one(
    weights_ND: torch.Tensor, reference_D: torch.Tensor, layout: Layout, groups: Sequence[Group]
) -> list[torch.Tensor]:
    """What our own code costs when each network comes alone."""
    found = [
        match_networks(w_D[None], reference_D, layout=layout, groups=groups, start="identity")
        for w_D in weights_ND
    ]
    return [torch.cat([orders[g] for orders in found]) for g in range(len(groups))]
