"""Several zoos of different architectures in one call, and the manifest over them.

The shards of all zoos are units of one work, so one launch, one job array and one progress bar are
theirs together. Each zoo is as `train_zoo` alone would make it, to the same bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dwf.compute import device_of_all
from dwf.datasets.own import identified
from dwf.errors import RunConflict, StillRunning
from dwf.flags import words_naming
from dwf.names import folder_in
from dwf.run_folder import hold
from dwf.same_settings import differences
from dwf.settings import build, read_yaml, to_dict
from dwf.stages import Runner, Work, run_here, stage
from dwf.zoo import grow
from dwf.zoo import stage as one
from dwf.zoo.cohorts import describe_cost as cost_of_one
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import FILE
from dwf.zoo.family_config import FamilyConfig
from dwf.zoo.manifest import write_manifest
from dwf.zoo.store import FAMILY, Zoo


def plan(config: FamilyConfig, root: Path, *, name: str) -> str:
    """Return in words what `train_zoos` would train, zoo by zoo."""
    members = config.members
    plans = [one.plan(each, root, name=f"{name}-{label}") for label, each in members.items()]
    count = sum(each.num_networks for each in members.values())
    folder = folder_in(Path(root) / "zoos", name)
    return "\n".join([*plans, f"{len(members)} zoos of {count} networks in all -> {folder}"])


def describe_cost(config: FamilyConfig) -> str:
    """Return in words how many hours of a worker each zoo takes, at the rate of this machine."""
    return "\n".join(f"{label}: {cost_of_one(each)}" for label, each in config.members.items())


def train_zoos(
    config: FamilyConfig, root: Path | str, *, name: str, run: Runner = run_here
) -> dict[str, Zoo]:
    """Train zoos into `root/zoos/NAME-LABEL`, and name them together in `root/zoos/NAME`.

    Given again it goes on with what it finds. The name is then that of all of them, for `--zoo` of
    alignments and generators. A family that is finished grows by a larger `count`, zoo by zoo: see
    `zoo.grow`.

    Args:
        config: settings of each zoo.
        root: folder that holds `zoos/`.
        name: the family's name.
        run: runs the units, shards of all zoos: `run_here`, or a runner of `dwf.cluster`.

    Returns:
        Label -> zoo, in order.

    Raises:
        ConfigError: networks of a zoo do not fit its data; before any is trained.
        RunConflict: a folder holds another zoo or family, or this one with a smaller `count` and
            not finished, or another process trains it.
        WorkFailed: shards failed; the others are whole.
        StillRunning: the runner left the work to others; call again to look.
    """
    root = Path(root)
    if grows(config, root, name=name):
        return _grow(config, root, name=name, run=run)
    config = _identified(config)
    folder, members = folder_in(Path(root) / "zoos", name), config.members
    with stage(FAMILY, folder, config=config, has_workers=True) as record:
        if record is not None:
            for label, each in members.items():
                one.begin_zoo(each, root, name=f"{name}-{label}")
            write_manifest(folder, {label: f"{name}-{label}" for label in members})
    if record is not None:
        run(work(config, root, name=name))
    zoos = {
        label: one.train_zoo(each, root, name=f"{name}-{label}") for label, each in members.items()
    }
    if record is not None:
        with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
            if record.summary is None:
                record.finish(**_summary(zoos))
    return zoos


def grows(config: FamilyConfig, root: Path, *, name: str) -> bool:
    """Whether a family of these settings but for a smaller `count` is there: its zoos then grow.

    Raises:
        RunConflict: it is not finished.
    """
    folder = folder_in(Path(root) / "zoos", name)
    file = folder / "run" / "config.yaml"
    if not file.exists():
        return False
    told = read_yaml(file)
    apart = differences(told, to_dict(_identified(config)))
    if {key.rpartition(".")[2] for key, _, _ in apart} != {"count"}:
        return False
    before = build(FamilyConfig, told, source=str(file)).members
    more = [zoo.count - before[label].count for label, zoo in config.members.items()]
    if min(more) < 0 or not any(more):
        return False
    if not (folder / "run" / "done.json").exists():
        raise RunConflict(
            f"{folder} is to grow, and is not finished: give dwf zoo --resume "
            f"{words_naming(folder, 'zoos')} first, then this command again"
        )
    return True


def targets(config: FamilyConfig, root: Path, *, name: str) -> dict[str, ZooConfig]:
    """Return name -> settings of each zoo to train so that a family grows.

    Raises:
        RunConflict: see `grow.target_of`.
    """
    found: dict[str, ZooConfig] = {}
    for label, each in config.members.items():
        target, made = grow.target_of(each, root, name=f"{name}-{label}")
        if made != f"{name}-{label}":
            found[made] = target
    return found


def _grow(config: FamilyConfig, root: Path, *, name: str, run: Runner) -> dict[str, Zoo]:
    """Train what is missing of each zoo; begin all before jobs are left to themselves."""
    zoos: dict[str, Zoo] = {}
    waits = None
    for label, each in config.members.items():
        try:
            zoos[label] = one.train_zoo(each, root, name=f"{name}-{label}", run=run)
        except StillRunning as error:
            waits = error
    if waits:
        raise waits
    return zoos


def report(zoos: Mapping[str, Zoo]) -> None:
    """Print what `train_zoos` made."""
    for zoo in zoos.values():
        one.report(zoo)


def work(config: FamilyConfig, root: Path, *, name: str) -> Work:
    """Return the shards of all zoos as units of work, those of the first zoo first."""
    folder = folder_in(Path(root) / "zoos", name)
    works = [one.work(each, root, name=f"{name}-{label}") for label, each in config.members.items()]
    return Work(
        folder=folder.absolute(),
        count=sum(each.count for each in works),
        unit=train_unit,
        finished=finished_units,
        progress=training_progress,
        what=f"train zoos {name}",
        size=sum(each.size for each in works),
        unit_name="networks",
        device=device_of_all(each.device for each in works),
    )


def train_unit(folder: Path, index: int) -> None:
    """Train one shard of the family in `folder`: the unit of work."""
    for config, member, first in _places(folder):
        if index < first + config.num_shards:
            return one.train_shard(member, index - first)
    raise IndexError(index)


def finished_units(folder: Path) -> set[int]:
    """Return which shards of the family in `folder` are whole."""
    return {
        first + index
        for _, member, first in _places(folder)
        for index in one.finished_shards(member)
    }


def training_progress(folder: Path) -> tuple[float, str]:
    """Return the share of all networks' training that is done, and how far the zoos are."""
    done = total = 0.0
    for config, member, _ in _places(folder):
        if (member / FILE).exists():  # else it is still to be begun
            done += config.count * one.training_progress(member)[0]
        total += config.count
    return done / total, ""


def _identified(config: FamilyConfig) -> FamilyConfig:
    """Return settings in which each zoo has its own data, found again without a path."""
    data = {label: to_dict(identified(each.data)) for label, each in config.members.items()}
    zoos = {label: own | {"data": data[label]} for label, own in config.zoos.items()}
    shared = {key: value for key, value in config.shared.items() if key != "data"}
    return replace(config, zoos=zoos, shared=shared)


def _places(folder: Path) -> list[tuple[ZooConfig, Path, int]]:
    """Return each zoo's settings, folder, and number of its first shard among those of all."""
    file = folder / "run" / "config.yaml"
    if not file.exists():  # nothing was begun
        return []
    family = build(FamilyConfig, read_yaml(file), source=str(file))  # and trusts no code it names
    places, first = [], 0
    for label, config in family.members.items():
        places.append((config, folder.with_name(f"{folder.name}-{label}"), first))
        first += config.num_shards
    return places


def _summary(zoos: Mapping[str, Zoo]) -> dict[str, dict[str, int]]:
    return {label: {"rows": len(zoo)} for label, zoo in zoos.items()}
