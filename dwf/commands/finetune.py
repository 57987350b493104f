"""Train networks of several origins further on another task: finetunes/NAME.

dwf finetune --zoo mnist_mlp-aligned --samples mnist_mlp-samples
dwf finetune --config fashion_mnist --zoo Z --samples S --nodes 4
"""

from collections.abc import Sequence
from functools import partial

from dwf import settings
from dwf.cluster.config import ClusterLaunch
from dwf.commands.beginning import begins
from dwf.metrics import log_to_stderr
from dwf.transfer.config import FinetuneConfig

DEFAULT = "fashion_mnist"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train, report."""
    log_to_stderr()
    parsed = settings.parse(
        FinetuneConfig,
        DEFAULT,
        argv=argv,
        command="finetune",
        about=__doc__,
        folder="finetunes",
        flags=ClusterLaunch,
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.cluster import backend
    from dwf.transfer.stage import describe_cost, finetune, plan, report

    folder = launch.root / "finetunes" / name
    planned = plan(config, launch.root, name=name)
    cost = partial(describe_cost, config, launch.root)
    if begins(parsed, planned, folders=(folder,), cost=cost):
        run = backend.runner(launch, folder)
        report(finetune(config, launch.root, name=name, run=run), folder)
