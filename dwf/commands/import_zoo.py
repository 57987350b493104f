"""Import a zoo of networks that others trained, as zoos/NAME.

dwf import --config state_dict --source checkpoints
"""

from collections.abc import Sequence
from pathlib import Path

from dwf import preemption, settings
from dwf.commands.overwrite import make_room
from dwf.importers.config import ImportConfig, ImportLaunch
from dwf.importers.fetch import fetch
from dwf.metrics import log_to_stderr
from dwf.trust import trust_pickle

DEFAULT = "state_dict"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, import, report."""
    log_to_stderr()
    parsed = settings.parse(
        ImportConfig,
        DEFAULT,
        argv=argv,
        command="import",
        about=__doc__,
        folder="zoos",
        flags=ImportLaunch,
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    trust_pickle(*launch.trust_pickle)
    if launch.fetch and not launch.dry_run:
        fetch(launch.fetch, Path(config.source))
    from dwf.importers.stage import import_zoo, plan, report, zoos_of
    from dwf.zoo.manifest import write_manifest

    zoos = zoos_of(config, name)
    if launch.dry_run:
        plans = [plan(each, launch.root, name=own) for own, each in zoos.items()]
        print(*plans, parsed.describe(), sep="\n")
        return
    make_room(launch, launch.root / "zoos" / name)
    preemption.watch()
    for own, each in zoos.items():
        report(import_zoo(each, launch.root, name=own))
    if name not in zoos:  # several architectures: the name stands for all of them
        labels = {own.removeprefix(f"{name}-"): Path(own).name for own in zoos}
        write_manifest(launch.root / "zoos" / name, labels)
