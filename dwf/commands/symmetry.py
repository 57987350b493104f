"""Symmetry groups of architectures, and how far random orders change the function.

dwf symmetry configs/zoo/*.yaml
dwf symmetry zoos/mnist_mlp configs/zoo/resnet20_narrow_cifar10.yaml --members
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from torch import nn

from dwf.align.groups import Group
from dwf.align.symmetry import describe, symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.arguments import REPEATED, Argument
from dwf.data_paths import give_data
from dwf.datasets.known import input_shape
from dwf.errors import ConfigError, DwfError
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.trust import trust_code as trust
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo

Paths = Annotated[tuple[Path, ...], Argument(is_positional=True, metavar="PATH")]
_MOST_INPUTS = 2**26  # of one image, which is run through the network
Repeated = Annotated[tuple[str, ...], REPEATED]


def symmetry(
    paths: Paths,
    *,
    shape: tuple[int, ...] = (),
    members: bool = False,
    trust_code: Repeated = (),
    data_path: Repeated = (),
) -> None:
    """Print a row of a Markdown table for each zoo folder or zoo configuration.

    Args:
        paths: zoo folders, or their settings files.
        shape: shape of one image, where it is not known.
        members: also list what each group moves.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
        data_path: place of own data that a zoo names, as NAME=FILE.
    """
    if any(side < 1 for side in shape) or math.prod(shape) > _MOST_INPUTS:
        allowed = f"sides of at least 1 and {_MOST_INPUTS:,} numbers at most"
        raise ConfigError(f"--shape {' '.join(map(str, shape))}: allowed are {allowed}")
    trust(*trust_code)
    give_data(*data_path)
    print("| network | parameters | symmetry groups | deviation |\n| --- | --- | --- | --- |")
    for path in paths:
        try:
            network, image = _read(path, shape)
            groups = symmetry_of(network, Layout.of(network), input_shape=image)
            deviation = f"{verify_symmetry(network, groups, input_shape=image):.0e}"
            found = describe(groups)
        except DwfError as error:
            raise ConfigError(f"{path}: {error}") from None
        parameters = sum(p.numel() for p in network.parameters())
        print(f"| {path.stem} | {parameters:,} | {found} | {deviation} |")
        if members:
            print("\n".join(_lines(groups)))


def _read(path: Path, shape: Sequence[int]) -> tuple[nn.Module, tuple[int, ...]]:
    if path.is_dir():
        zoo = Zoo.open(path)
        return zoo.build_network(), tuple(shape or zoo.input_shape)
    config = load(ZooConfig, path)
    return build_network(config.network), tuple(shape or input_shape(config.data))


def _lines(groups: Sequence[Group]) -> list[str]:
    lines = []
    for g, group in enumerate(groups):
        within = "" if group.parent is None else f" in {group.parent} at {group.place}"
        free = [word for word in ("scales", "signs") if getattr(group, word)]
        axes = ", ".join(f"{member.name}[{member.axis}]" for member in group.members)
        lines.append(" ".join([f"  {g}: {group.kind} of {group.size}{within}:", *free, axes]))
    return lines
