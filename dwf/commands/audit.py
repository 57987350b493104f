"""Hold many generators against each other and against every null arm: audits/NAME.

dwf audit --config digits
dwf audit --config digits --set sample.count=50
dwf audit --config mnist14 --nodes 4    # rows through Slurm
"""

from collections.abc import Sequence

from dwf import room, settings
from dwf.audit.config import AuditConfig
from dwf.cluster.config import ClusterLaunch
from dwf.commands.beginning import begins
from dwf.metrics import log_to_stderr

DEFAULT = "digits"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train the rows, report."""
    log_to_stderr()
    parsed = settings.parse(
        AuditConfig,
        DEFAULT,
        argv=argv,
        command="audit",
        about=__doc__,
        folder="audits",
        flags=ClusterLaunch,
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.audit.stage import audit_generators, plan, report, trust_named
    from dwf.cluster import backend

    if not launch.resume:  # else a folder's settings, which the user has not named
        trust_named(config)
    folder = launch.root / "audits" / name
    with room.planned_only(launch.dry_run or backend.is_elsewhere(launch, folder)):
        planned = plan(config, launch.root, name=name)
    if begins(parsed, planned, folders=(folder,)):
        run = backend.runner(launch, folder)
        report(audit_generators(config, launch.root, name=name, run=run), folder)
