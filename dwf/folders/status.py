"""How far each folder under a root is, from the disk alone; changes nothing."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dwf.errors import CorruptShard, DwfError
from dwf.files import read_json, told_by
from dwf.flags import words_naming
from dwf.folders.kinds import KINDS, MADE_BY, Place, place_of, places
from dwf.jobs import Jobs, Living, nobody_tells, read_jobs
from dwf.metrics import read_metrics
from dwf.names import folders_in
from dwf.pipeline import PipelineConfig, commands
from dwf.plain import Json
from dwf.run_folder import holder
from dwf.settings import build, flatten
from dwf.system_errors import sentence_of
from dwf.yaml_files import read_mapping
from dwf.zoo.manifest import grown_by, read_manifest

State = Literal[
    "finished", "in work", "running", "queued", "submitted", "stopped", "damaged", "unreadable"
]


@dataclass(frozen=True)
class Standing:
    """A folder, and how far it is."""

    place: Place
    state: State
    far: str
    """How far it is in words, or what is wrong; empty where the state says all."""
    holder: str | None
    """The process that works on it."""
    changed: float | None
    """When its records last changed, in seconds since 1970; None where it has none."""
    jobs: Jobs | None = None
    """Jobs that it was submitted as, while it is not finished and no process works on it."""

    @property
    def lines(self) -> list[str]:
        """Sentences on who works on it, or worked and ended."""
        if self.holder:
            return [f"{self.place.path}: worked on by {self.holder}"]
        if not self.jobs:
            return []
        said = f"{self.place.path}: {self.jobs.words}"
        return [said + f": {_going_on(self.place)}" * (self.state == "stopped")]

    @property
    def cells(self) -> list[str]:
        """Its cells under `COLUMNS`."""
        when = "" if self.changed is None else time.strftime(_TIME, time.localtime(self.changed))
        kind = self.place.kind
        folder = self.place.path.absolute().relative_to(self.place.root)
        return [str(folder), kind.noun, self.state, self.far, when]


COLUMNS = ("folder", "kind", "state", "how far", "last change")
_TIME = "%Y-%m-%d %H:%M"


_SUBMITTED_BY = {
    "zoo": "zoo",
    "run": "generator",
    "experiment": "predictor",
    "fine-tuning": "finetune",
    "audit": "audit",
}
"""Kind -> command that submits work on one to Slurm."""


def _going_on(place: Place) -> str:
    """Return how the work that jobs left is taken up."""
    command = f"dwf {_SUBMITTED_BY[place.kind.noun]} --resume"
    nodes = " --nodes N" if place.kind.noun == "run" else ""  # of others a record tells it
    return f"go on with: {command} {words_naming(place.path, place.kind.parent)}{nodes}"


def read_standings(root: Path, living: Living = nobody_tells) -> list[Standing]:
    """Return how far everything under a root is, kind by kind, by name.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
        living: asks Slurm.
    """
    known = [place for kind in KINDS.values() for place in places(root, kind)]
    paths = {place.path for place in known}
    closed = [one for one in _closed(root) if one.place.path not in paths]
    return [*(read_standing(place, living) for place in known), *closed]


def _closed(root: Path) -> Iterator[Standing]:
    """Yield the folders that the system does not list, of whichever kind they are."""
    for kind in {kind.parent: kind for kind in reversed(KINDS.values())}.values():
        parent = root / kind.parent
        for folder in (parent, *folders_in(parent)):
            try:
                os.scandir(folder).close()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                told = sentence_of(error)
                yield Standing(Place(folder, kind), "unreadable", told, None, changed=None)


def read_standing(place: Place, living: Living = nobody_tells) -> Standing:
    """Return how far a folder is.

    Args:
        place: the folder.
        living: asks Slurm.
    """
    who = holder(place.records)
    try:
        with told_by(place.path, cure="its records were altered"):
            is_finished, far = _FAR.get(place.kind.noun, _by_records)(place)
            jobs = None if who or is_finished else read_jobs(place.records, living)
    except OSError as error:
        return Standing(place, "unreadable", sentence_of(error), who, _changed(place))
    except DwfError as error:
        return Standing(place, "damaged", " ".join(str(error).split()), who, _changed(place))
    state: State = "finished" if is_finished else "stopped"
    if who:
        state = "in work"
    elif jobs and jobs.state != "ended":
        state = jobs.state
    return Standing(place, state, far, who, changed=_changed(place), jobs=jobs)


def _changed(place: Place) -> float | None:
    files = [place.records / name for name in ("done.json", "metrics.jsonl", "environment.json")]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return max(times, default=None)


# --- kinds ---------------------------------------------------------------------------------------


def _by_records(place: Place) -> tuple[bool, str]:
    return place.is_finished, ""


def _of_zoo(place: Place) -> tuple[bool, str]:
    zoos = read_manifest(place.path)
    if zoos is not None:
        of = f"names {len(zoos)} zoos: {', '.join(zoos.values())}"
        return all((place.path.with_name(zoo) / "zoo.h5").exists() for zoo in zoos.values()), of
    from dwf.zoo.status import read_status

    told = read_status(place.path)
    if told.damaged:
        raise CorruptShard(next(iter(told.damaged.values())))
    if told.unread:
        return False, f"{len(told.unread)} of {told.num_shards} shards cannot be read"
    counts = f"{told.num_networks:,} networks, {told.num_rows:,} rows"
    if told.is_whole:
        more = ", ".join(path.name for path in grown_by(place.path))
        return True, counts + (f"; opens as one with {more}" if more else "")
    begun = f", {len(told.begun)} begun" if told.begun else ""
    return False, f"{len(told.whole)} of {told.num_shards} shards{begun}; {counts}"


def _of_run(place: Place) -> tuple[bool, str]:
    if place.is_finished:
        return True, _last_loss(place.path)
    settings = flatten(place.settings)
    for part in ("density", "codec"):  # the one that trains last first
        files = [place.path / part / "metrics.jsonl"]
        files += [place.path / "metrics.jsonl"] if part == "density" else []
        for file in files:
            if file.exists() and (lines := read_metrics(file)):
                most = settings.get(f"{part}.training.steps")
                of = f" of {most:,}" if isinstance(most, int) else ""
                return False, f"{part}: step {lines[-1]['step']:,}{of}"
    return False, "nothing is learnt yet"


def _last_loss(folder: Path) -> str:
    told = flatten(read_json(folder / "done.json"))
    loss = told.get("density.val_loss")
    return f"validation loss {loss:.4g}" if isinstance(loss, float) else ""


def _of_report(place: Place) -> tuple[bool, str]:
    if not place.is_finished:
        return False, ""
    told: dict[str, Json] = read_json(place.done_file)
    zoo = next(iter(told.get("fingerprints", {})), None)
    return True, f"on {zoo}" if zoo else ""


def _of_experiment(place: Place) -> tuple[bool, str]:
    from dwf.predictors.stage import progress

    return place.is_finished, _share(*progress(place.path), "rows")


def _of_finetune(place: Place) -> tuple[bool, str]:
    if place.is_finished:
        return True, ""
    from dwf.transfer.stage import progress

    return False, _share(*progress(place.path), "training")


def _of_audit(place: Place) -> tuple[bool, str]:
    from dwf.audit.stage import progress

    return place.is_finished, _share(*progress(place.path), "rows")


def _share(share: float, fact: str, what: str) -> str:
    return f"{share:.0%} of {what}" + (f", {fact}" if fact else "")


def _of_sweep(place: Place) -> tuple[bool, str]:
    from dwf.sweeps.trial import read_points, read_records

    over, begun = len(read_records(place.path)), len(read_points(place.path))
    return place.is_finished, f"{over} trials over of {begun} begun"


def _of_pipeline(place: Place) -> tuple[bool, str]:
    """Tell how many of its commands' folders are finished; measurements have none of their own."""
    file = place.path / "config.yaml"
    config = build(PipelineConfig, read_mapping(file), source=str(file))
    given = [one for one in commands(config, place.name) if one.stage in MADE_BY]
    open_ = [one for one in given if not place_of(one.stage, place.root, name=one.name).is_finished]
    if not open_:
        return True, f"all {len(given)} stages"
    done = len(given) - len(open_)
    return False, f"{done} of {len(given)} stages, next {open_[0].stage} {open_[0].name}"


def _of_export(place: Place) -> tuple[bool, str]:
    told = read_json(place.path / "export.json", keys=("zoo", "kind", "rows"))
    return True, f"networks of {told['zoo']} as {told['kind']}: {len(told['rows']):,}"


_FAR: dict[str, Callable[[Place], tuple[bool, str]]] = {
    "zoo": _of_zoo,
    "run": _of_run,
    "experiment": _of_experiment,
    "report": _of_report,
    "fine-tuning": _of_finetune,
    "sweep": _of_sweep,
    "audit": _of_audit,
    "pipeline": _of_pipeline,
    "export": _of_export,
}
"""Kind -> whether one is finished, and how far it is in words."""


def in_short(standings: Sequence[Standing]) -> str:
    """Return how many are in each state, in words."""
    states = [one.state for one in standings]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
