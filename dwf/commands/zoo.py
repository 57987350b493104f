"""Train a zoo of networks into zoos/NAME, or several zoos that a family's settings list.

dwf zoo --config mnist_mlp
dwf zoo --config mnist_mlp_cluster --nodes 16
dwf zoo --config families/mlps_digits
"""

from collections.abc import Sequence

from dwf import room, settings
from dwf.cluster.config import ClusterLaunch
from dwf.commands.beginning import begins
from dwf.metrics import log_to_stderr
from dwf.trust import code_in, trust_code
from dwf.zoo.config import ZooConfig
from dwf.zoo.family_config import FamilyConfig, class_of

DEFAULT = "mnist_mlp"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, train, report."""
    log_to_stderr()
    file = settings.file_named(
        DEFAULT,
        argv,
        classes=(ZooConfig, FamilyConfig, ClusterLaunch),
        command="zoo",
        folder="zoos",
    )
    cls = class_of(settings.read_yaml(file))
    parsed = settings.parse(
        cls, DEFAULT, argv=argv, command="zoo", about=__doc__, folder="zoos", flags=ClusterLaunch
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.cluster import backend

    target, made = config, name
    if isinstance(config, FamilyConfig):
        from dwf.zoo.family import describe_cost, grows, plan, report, work
        from dwf.zoo.family import train_zoos as train

        if not launch.resume:  # else a folder's settings, which the user has not named
            trust_code(*code_in(tuple(config.members.values())))
        if not launch.overwrite and grows(config, launch.root, name=name):
            _grow(parsed, config)
            return
    else:
        from dwf.zoo.cohorts import describe_cost
        from dwf.zoo.grow import target_of
        from dwf.zoo.stage import plan, report, work
        from dwf.zoo.stage import train_zoo as train

        if not launch.overwrite:
            target, made = target_of(config, launch.root, name=name)
    if made != name:
        print(f"zoo {name} grows: {made} is trained, and {name} then opens as one with it")
    units = work(target, launch.root, name=made)
    with room.planned_only(launch.dry_run or backend.is_elsewhere(launch, units.folder)):
        planned = plan(target, launch.root, name=made)

    def cost() -> str:
        return f"{describe_cost(target)}\n{backend.describe(launch, units)}"

    if begins(parsed, planned, folders=(launch.root / "zoos" / name,), cost=cost):
        report(train(config, launch.root, name=name, run=backend.runner(launch, units.folder)))


def _grow(parsed: settings.Parsed, config: FamilyConfig) -> None:
    """Train what is missing of each zoo of a family."""
    from dwf.cluster import backend
    from dwf.stages import Work
    from dwf.zoo.cohorts import describe_cost
    from dwf.zoo.family import report, targets, train_zoos
    from dwf.zoo.stage import plan, work

    launch, name = parsed.launch, parsed.name
    found = targets(config, launch.root, name=name)
    plans = [plan(each, launch.root, name=made) for made, each in found.items()]
    said = f"family {name} grows: {', '.join(found)}; the zoos then open as one with these"

    def cost() -> str:
        lines: list[str] = []
        for made, each in found.items():
            units = work(each, launch.root, name=made)
            lines += [f"{made}: {describe_cost(each)}", backend.describe(launch, units)]
        return "\n".join(lines)

    def run(units: Work) -> None:
        backend.runner(launch, units.folder)(units)

    if begins(parsed, "\n".join([said, *plans]), folders=(launch.root / "zoos" / name,), cost=cost):
        report(train_zoos(config, launch.root, name=name, run=run))
