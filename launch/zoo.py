"""Train a zoo of networks into zoos/NAME.

python launch/zoo.py --config configs/zoo/mnist_mlp.yaml
python launch/zoo.py --config configs/zoo/mnist_mlp_cluster.yaml --nodes 16
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.cluster.config import ClusterLaunch
from dwf.errors import exit_cleanly
from dwf.metrics import log_to_stderr
from dwf.zoo.config import ZooConfig

DEFAULT = "configs/zoo/mnist_mlp.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train, report."""
    parsed = settings.parse(ZooConfig, DEFAULT, argv=argv, folder="zoos", flags=ClusterLaunch)
    config, launch, name = parsed.config, parsed.launch, parsed.name
    log_to_stderr()
    from dwf.cluster import backend
    from dwf.zoo.cohorts import describe_cost
    from dwf.zoo.stage import plan, report, train_zoo, work

    print(plan(config, launch.root, name=name))
    units = work(config, launch.root, name=name)
    if launch.dry_run:
        print(describe_cost(config), backend.describe(launch, units), parsed.describe(), sep="\n")
        return
    preemption.watch()
    report(train_zoo(config, launch.root, name=name, run=backend.runner(launch, units.folder)))


if __name__ == "__main__":
    exit_cleanly(main)
