"""Try settings of any stage under Ray Tune: sweeps/NAME/.

python launch/sweep.py --config configs/sweep/mnist_hidden_dims_x_modes.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dwf import preemption, settings
from dwf.errors import exit_cleanly
from dwf.metrics import log_to_stderr, table_console
from dwf.settings import Count
from dwf.sweeps.config import SweepConfig

TABLE_WIDTH = 140


@dataclass(frozen=True)
class SweepLaunch(settings.Launch):
    """Where the trials run."""

    workers: Count | None = None
    """CPUs of the Ray that is started here; default: all. One that is joined has its own."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, run the trials, print the table and where the rest lies."""
    default = "configs/sweep/mnist_hidden_dims_x_modes.yaml"
    parsed = settings.parse(SweepConfig, default, argv, folder="sweeps", flags=SweepLaunch)
    launch, config = parsed.launch, parsed.config
    log_to_stderr()
    from dwf.sweeps.plan import describe_plan
    from dwf.sweeps.space import describe_bases, read_bases
    from dwf.sweeps.trial import read_points, read_records

    folder, bases = launch.root / "sweeps" / parsed.name, read_bases(config)
    print(describe_plan(config, bases, folder, read_points(folder), read_records(folder)))
    if launch.dry_run:
        print(parsed.describe())
        print(describe_bases(bases))
        return
    from dwf.cluster import ray_cluster
    from dwf.sweeps.stage import run_sweep

    preemption.watch()
    ray_cluster.connect(launch.workers)
    run = ray_cluster.runner(launch.workers)
    report = run_sweep(config, launch.root, parsed.name, run)
    console = table_console(TABLE_WIDTH)
    console.print(report.table())
    print(f"all trials: {folder / 'table.csv'}; best settings: {folder / 'best'}")
    if (folder / "curves.md").exists():
        print(f"curves: {folder / 'curves.png'}, {folder / 'curves.md'}")


if __name__ == "__main__":
    exit_cleanly(main)
