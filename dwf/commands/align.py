"""Align a zoo, or each of a family: one symmetry frame, as zoos/NAME (default ZOO-aligned).

dwf align --config git_rebasin --zoo mnist_mlp
mpirun -n 4 dwf align --zoo mnist_mlp
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.align.config import AlignConfig
from dwf.commands.overwrite import make_room
from dwf.metrics import log_to_stderr
from dwf.ranks import find_ranks, world

DEFAULT = "git_rebasin"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, align, report."""
    if find_ranks().is_first:
        log_to_stderr()
    parsed = settings.parse(
        AlignConfig,
        DEFAULT,
        argv=argv,
        command="align",
        about=__doc__,
        folder="zoos",
        named="{zoo}-aligned",
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    is_first = find_ranks().is_first
    from dwf.align.family import align_zoos, plan, report

    if launch.dry_run:
        if is_first:
            print(plan(config, launch.root, name=name), parsed.describe(), sep="\n")
        return
    world().on_first(make_room, launch, launch.root / "zoos" / name)
    preemption.watch()
    aligned = align_zoos(config, launch.root, name=name)
    if is_first:
        report(aligned)
