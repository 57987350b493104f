"""Train a zoo of networks into zoos/NAME.

python launch/zoo.py --config configs/zoo/mnist_mlp.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dwf import preemption, settings
from dwf.errors import exit_cleanly
from dwf.metrics import log_to_stderr
from dwf.settings import Count
from dwf.zoo.config import ZooConfig


@dataclass(frozen=True)
class ZooLaunch(settings.Launch):
    """Where the zoo is trained."""

    workers: Count | None = None
    """Worker processes on this machine; default: one per core. Changes no byte of the zoo."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train."""
    default = "configs/zoo/mnist_mlp.yaml"
    parsed = settings.parse(ZooConfig, default, argv, folder="zoos", flags=ZooLaunch)
    log_to_stderr()
    from dwf.cluster import local
    from dwf.zoo import stage

    launch = parsed.launch
    print(stage.describe_plan(parsed.config))
    if launch.dry_run:
        print(parsed.describe())
        return
    preemption.watch()
    zoo = stage.train_zoo(parsed.config, launch.root, parsed.name, local.runner(launch.workers))
    print(f"{len(zoo)} rows in {zoo.path}")


if __name__ == "__main__":
    exit_cleanly(main)
