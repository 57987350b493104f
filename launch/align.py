"""Align a zoo: bring its networks into one symmetry frame, as zoos/NAME (default ZOO-aligned).

python launch/align.py --config configs/align/git_rebasin.yaml --zoo mnist_mlp
"""

from dwf import preemption, settings
from dwf.align.config import AlignConfig
from dwf.errors import exit_cleanly
from dwf.metrics import log_to_stderr
from dwf.zoo.store import Zoo


def main() -> None:
    """Parse, plan, align, report."""
    parsed = settings.parse(AlignConfig, "configs/align/git_rebasin.yaml", folder="zoos")
    launch, config = parsed.launch, parsed.config
    name = launch.name or f"{config.zoo}-aligned"
    log_to_stderr()
    if launch.dry_run:
        zoo = Zoo.open(launch.root / "zoos" / config.zoo)
        print(
            f"{len(zoo)} rows of {zoo.layout.size:,} weights in {len(zoo.shards)} shards: "
            f"{zoo.path} -> {zoo.path.with_name(name)}"
        )
        print(parsed.describe())
        return
    from dwf.align.report import print_report, read_report
    from dwf.align.stage import align_zoo

    preemption.watch()
    aligned = align_zoo(config, launch.root, name)
    print_report(read_report(aligned))
    print(f"{len(aligned)} rows in {aligned.path}")


if __name__ == "__main__":
    exit_cleanly(main)
