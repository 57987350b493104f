"""Print the symmetry groups of architectures, and how far random orders change the function.

python -m dwf.align configs/zoo/*.yaml
python -m dwf.align zoos/mnist_mlp configs/zoo/resnet20_narrow_cifar10.yaml --members
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dwf.align.groups import Group
from dwf.align.symmetry import describe, symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.data_paths import DATA_HELP, give_data
from dwf.datasets.known import input_shape
from dwf.errors import DwfError, exit_cleanly
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.trust import TRUST_HELP, trust_code
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row of a Markdown table for each zoo folder or zoo configuration."""
    parser = argparse.ArgumentParser(prog="python -m dwf.align", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="zoo folders, or their configurations")
    parser.add_argument("--shape", nargs="+", type=int, help="of one image, where it is not known")
    parser.add_argument("--members", action="store_true", help="also list what each group moves")
    parser.add_argument("--trust-code", action="append", default=[], help=TRUST_HELP)
    parser.add_argument("--data-path", action="append", default=[], help=DATA_HELP)
    options = parser.parse_args(argv)
    trust_code(*options.trust_code)
    give_data(*options.data_path)
    print("| network | parameters | symmetry groups | deviation |\n| --- | --- | --- | --- |")
    for path in options.paths:
        try:
            network, shape = _read(path, options.shape)
            groups = symmetry_of(network, Layout.of(network), input_shape=shape)
            deviation = f"{verify_symmetry(network, groups, input_shape=shape):.0e}"
            found = describe(groups)
        except DwfError as error:
            parser.exit(2, f"{path}: {error}\n")
        parameters = sum(p.numel() for p in network.parameters())
        print(f"| {path.stem} | {parameters:,} | {found} | {deviation} |")
        if options.members:
            print("\n".join(_lines(groups)))


def _read(path: Path, shape: Sequence[int] | None) -> tuple[nn.Module, tuple[int, ...]]:
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


if __name__ == "__main__":
    exit_cleanly(main)
