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


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train."""
    default = "configs/zoo/mnist_mlp.yaml"
    parsed = settings.parse(ZooConfig, default, argv, folder="zoos", flags=ClusterLaunch)
    log_to_stderr()
    from dwf.cluster import backend
    from dwf.zoo import stage
    from dwf.zoo.cohorts import describe_cost

    launch, config = parsed.launch, parsed.config
    folder = launch.root / "zoos" / parsed.name
    print(stage.describe_plan(config))
    if launch.dry_run:
        print(describe_cost(config))
        print(backend.describe(launch, stage.work_of(config, folder)))
        print(parsed.describe())
        return
    preemption.watch()
    zoo = stage.train_zoo(config, launch.root, parsed.name, backend.runner(launch, folder))
    print(f"{len(zoo)} rows in {zoo.path}")


if __name__ == "__main__":
    exit_cleanly(main)
