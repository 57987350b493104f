"""Try settings of any stage under Ray Tune: sweeps/NAME/.

dwf sweep --config mnist_hidden_dims_x_modes
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.commands.overwrite import make_room
from dwf.metrics import log_to_stderr
from dwf.sweeps.config import SweepConfig, SweepLaunch

DEFAULT = "mnist_hidden_dims_x_modes"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, run the trials, report."""
    log_to_stderr()
    parsed = settings.parse(
        SweepConfig,
        DEFAULT,
        argv=argv,
        command="sweep",
        about=__doc__,
        folder="sweeps",
        flags=SweepLaunch,
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.cluster import ray_cluster
    from dwf.sweeps.space import describe_bases, read_bases, trust_named
    from dwf.sweeps.stage import plan, report, run_sweep

    if not launch.resume:  # else a folder's settings, which the user has not named
        trust_named(config)
    print(plan(config, launch.root, name=name))
    if launch.dry_run:
        print(parsed.describe(), describe_bases(read_bases(config)), sep="\n")
        return
    make_room(launch, launch.root / "sweeps" / name)
    preemption.watch()
    ray_cluster.connect(launch.workers)
    made = run_sweep(config, launch.root, name=name, run=ray_cluster.runner(launch.workers))
    report(made, launch.root / "sweeps" / name)
