"""Measure properties of a zoo's networks, kept beside its shards: zoos/ZOO/measured/NAME.

dwf measure --zoo mnist_mlp
dwf measure --config robustness --zoo mnist_mlp --nodes 4
"""

import sys
from collections.abc import Sequence

from dwf import settings
from dwf.cluster.config import ClusterLaunch
from dwf.commands.beginning import begins
from dwf.measurements.config import MeasureConfig
from dwf.measurements.folder import folder_of, resumed_under
from dwf.metrics import log_to_stderr

DEFAULT = "scores"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, measure, report."""
    log_to_stderr()
    argv = list(sys.argv[1:] if argv is None else argv)
    parsed = settings.parse(
        MeasureConfig,
        DEFAULT,
        argv=argv,
        command="measure",
        about=__doc__,
        folder=resumed_under(argv),
        flags=ClusterLaunch,
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.cluster import backend
    from dwf.measurements.stage import measure_zoo, plan, report

    folder = folder_of(launch.root, config.zoo, name=name)
    if begins(parsed, plan(config, launch.root, name=name), folders=(folder,)):
        run = backend.runner(launch, folder)
        report(measure_zoo(config, launch.root, name=name, run=run))
