"""Align a zoo: bring its networks into one symmetry frame, as zoos/NAME (default ZOO-aligned).

python launch/align.py --config configs/align/git_rebasin.yaml --zoo mnist_mlp
mpirun -n 4 python launch/align.py --zoo mnist_mlp
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.align.config import AlignConfig
from dwf.metrics import log_to_stderr
from dwf.ranks import exit_together, find_ranks


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, align, report."""
    parsed = settings.parse(AlignConfig, "configs/align/git_rebasin.yaml", argv, "zoos")
    launch, config = parsed.launch, parsed.config
    name = launch.name or f"{config.zoo}-aligned"
    is_first = find_ranks().is_first
    if is_first:
        log_to_stderr()
    if launch.dry_run:
        if is_first:
            from dwf.align.stage import plan

            print(plan(config, launch.root, name))
            print(parsed.describe())
        return
    from dwf.align.report import print_report, read_report
    from dwf.align.stage import align_zoo

    preemption.watch()
    aligned = align_zoo(config, launch.root, name)
    if is_first:
        print_report(read_report(aligned))
        print(f"{len(aligned)} rows in {aligned.path}")


if __name__ == "__main__":
    exit_together(main)
