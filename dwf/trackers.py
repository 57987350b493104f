"""Trackers: where the numbers of a run are shown beside its own files.

`metrics.jsonl` is always written. Which trackers have the same numbers belongs to the launch and
not to the settings of a stage: it changes nothing that is made, so no run is refused because of it
and it is in no digest. All that a tracker writes lies in the run folder, and names of its runs are
kept there, so a resumed run goes on in them.
"""

import contextlib
import importlib.util
import json
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from dwf.errors import ConfigError, DwfError
from dwf.extras import require
from dwf.files import read_json
from dwf.plain import Json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TrackerName = Literal["tensorboard", "wandb", "mlflow", "none"]
RECORD = "trackers.json"
"""File of a run folder: tracker -> its name of this run; None until it has one."""
PROJECT = "dwf"
NONE: TrackerName = "none"
_chosen: tuple[TrackerName, ...] = ()


def by_default() -> tuple[TrackerName, ...]:
    """Return the trackers of a command whose user names none: TensorBoard, if it is installed."""
    return ("tensorboard",) if importlib.util.find_spec(TensorBoard.package) else ()


def track_with(*names: TrackerName) -> None:
    """Let runs of this process be shown by trackers; without names, or with `none`, by none.

    Raises:
        ConfigError: no such tracker, or its package is not installed; or `none` and others.
    """
    global _chosen
    if NONE in names:
        if len(names) > 1:
            raise ConfigError(f"track = {list(names)}: none stands alone")
        names = ()
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"track = {name!r}: allowed is one of {', '.join(TRACKERS)}")
        require(TRACKERS[name].package, who=f"track = {name!r}")
    _chosen = tuple(dict.fromkeys(names))


def open_trackers(
    folder: Path, config: Mapping[str, Json], *, step: int | None = None
) -> "Sequence[Tracker]":
    """Return the trackers of this process, opened for a run; the caller closes them.

    Args:
        folder: the run folder.
        config: settings to show, by dotted key.
        step: the step after which the run goes on; None: nothing of it is shown again.
    """
    return [TRACKERS[name](folder, config, step=step) for name in _chosen]


def where_to_look(folder: Path) -> list[str]:
    """Return a sentence for each tracker of this process: where it shows a run."""
    return [TRACKERS[name].where(folder) for name in _chosen]


def record_in(folder: Path) -> None:
    """Write down that a run is begun with this process's trackers.

    They open when there are first numbers; a run that is left before keeps them when it resumes.
    """
    known = _record(folder)
    if not known.keys() >= set(_chosen):
        _write_record(folder, dict.fromkeys(_chosen) | known)


def recorded_in(folder: Path) -> tuple[str, ...]:
    """Return the trackers that a run was begun with."""
    return tuple(_record(folder))


def _record(folder: Path) -> dict[str, str | None]:
    file = folder / RECORD
    try:
        return {str(k): None if v is None else str(v) for k, v in read_json(file).items()}
    except FileNotFoundError:
        return {}
    except DwfError:
        raise ConfigError(
            f"{file} does not say which trackers know the run: remove it, and they begin anew"
        ) from None


def _write_record(folder: Path, known: Mapping[str, str | None]) -> None:
    partial = folder / f"{RECORD}.partial-{uuid.uuid4().hex[:12]}"
    partial.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD)


class Tracker(ABC):
    """Tool that shows the numbers of one run.

    Args:
        folder: the run folder.
        config: settings to show, by dotted key.
        step: the step after which the run goes on; None: nothing of it is shown again.
    """

    name: ClassVar[TrackerName]
    package: ClassVar[str]
    """Package that it needs."""

    def __init__(self, folder: Path, config: Mapping[str, Json], *, step: int | None):
        self.folder = folder.absolute()
        with _own_folders(self.folder):
            known = _record(self.folder)
            identity = self.begin(known.get(self.name), config, step=step)
            if known.get(self.name) != identity:
                _write_record(self.folder, known | {self.name: identity})

    @property
    def title(self) -> str:
        """Name of the run for people: the folder, from the one that holds all of its kind on."""
        parts = self.folder.parts
        kinds = [i for i, part in enumerate(parts) if part in _KINDS]
        return "/".join(parts[kinds[-1] :] if kinds else parts[-1:])

    @classmethod
    @abstractmethod
    def where(cls, folder: Path) -> str:
        """Return where to look, in words with a command."""

    @abstractmethod
    def begin(self, identity: str | None, config: Mapping[str, Json], *, step: int | None) -> str:
        """Open a run, the one of an identity where there is one; return its identity."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers of a step."""

    def show_trial(
        self,
        number: int,
        point: Mapping[str, Json],
        *,
        found: Mapping[str, float],
        losses: Sequence[Mapping[str, Json]],
    ) -> None:
        """Show a trial of a sweep, by default as the step of its number.

        Args:
            number: the trial's.
            point: the settings that it tried, by dotted key.
            found: what came of it.
            losses: lines of its generator's metrics.
        """
        tried = {f"point/{name}": value for name, value in numbers_in(point).items()}
        self.log(number, tried | dict(found))

    @abstractmethod
    def summarise(self, values: Mapping[str, float]) -> None:
        """Show the numbers that a finished run leaves, by dotted key."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


_KINDS = ("zoos", "runs", "reports", "sweeps", "pipelines")


_PARTS = {"train_": "train", "val_": "validation"}
"""Prefix of a number's name -> run of TensorBoard that has it, so that one chart shows both."""


class TensorBoard(Tracker):
    """Event files in the folder `tensorboard`.

    Numbers of training and of validation are runs `train` and `validation` in it with the same
    names, as `loss`: TensorBoard then draws both in one chart. Settings are its `hparams`.
    """

    name = "tensorboard"
    package = "tensorboard"

    @classmethod
    def where(cls, folder: Path) -> str:
        """See the base."""
        return f"tensorboard --logdir {folder / 'tensorboard'}"

    def begin(self, identity: str | None, config: Mapping[str, Json], *, step: int | None) -> str:
        """Open event files of which steps above `step` are taken back; see the base."""
        self._purged = None if step is None else step + 1
        self._writers: dict[str, SummaryWriter] = {}
        if identity is None:
            rows = "\n".join(f"    {key}: {value}" for key, value in config.items())
            self._writer().add_text("settings", rows)
            _write_hparams(self._writer(), config)
        return self.name

    def _writer(self, part: str = "") -> "SummaryWriter":
        """Return the writer of a run in the folder, made on its first use."""
        from torch.utils.tensorboard import SummaryWriter

        if part not in self._writers:
            folder = self.folder / self.name / part
            self._writers[part] = SummaryWriter(str(folder), purge_step=self._purged)
        return self._writers[part]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See the base."""
        for name, value in values.items():
            part, short = _part_of(name)
            self._writer(part).add_scalar(short, value, step)

    def show_trial(
        self,
        number: int,
        point: Mapping[str, Json],
        *,
        found: Mapping[str, float],
        losses: Sequence[Mapping[str, Json]],
    ) -> None:
        """Show a trial as a run of its own, whose settings and results are `hparams`."""
        trial = f"trial-{number:05d}"
        if (self.folder / self.name / trial).exists():
            return  # by an attempt before
        _write_hparams(self._writer(trial), point)
        for name, value in found.items():
            self._writer(trial).add_scalar(name, value, number)
        for line in losses:
            for name in [name for name in ("train_loss", "val_loss") if name in line]:
                part, short = _part_of(name)
                self._writer(f"{trial}/{part}").add_scalar(short, line[name], line["step"])
        for part in [part for part in self._writers if part.startswith(trial)]:
            self._writers.pop(part).close()

    def summarise(self, values: Mapping[str, float]) -> None:
        """See the base."""
        for name, value in values.items():
            self._writer().add_scalar(f"summary/{name}", value, 0)

    def close(self) -> None:
        """See the base."""
        for writer in self._writers.values():
            writer.close()


def _part_of(name: str) -> tuple[str, str]:
    """Return the run of TensorBoard that a number is of, and its name there."""
    for prefix, part in _PARTS.items():
        if name.startswith(prefix):
            return part, name.removeprefix(prefix)
    return "", name


def _write_hparams(writer: "SummaryWriter", config: Mapping[str, Json]) -> None:
    """Write settings where TensorBoard's tab `hparams` finds them, beside the run's own numbers."""
    from torch.utils.tensorboard.summary import hparams

    plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in config.items()}
    _, started, _ = hparams(plain, {})  # TensorBoard finds the columns and numbers by itself
    writer.file_writer.add_summary(started)


class Wandb(Tracker):
    """Weights & Biases, offline unless $WANDB_MODE says otherwise."""

    name = package = "wandb"

    @classmethod
    def where(cls, folder: Path) -> str:
        """See the base."""
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "offline":
            return f"wandb: mode {mode}, as $WANDB_MODE says; its files are in {folder / 'wandb'}"
        return f"wandb: offline; to send it: wandb sync {folder / 'wandb'}/offline-run-*"

    def begin(self, identity: str | None, config: Mapping[str, Json], *, step: int | None) -> str:
        """See the base."""
        import wandb

        identity = identity or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.title,
            id=identity,
            resume="allow",
            dir=str(self.folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", save_code=False),
        )
        return identity

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See the base."""
        self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, float]) -> None:
        """See the base."""
        self._run.summary.update(dict(values))

    def close(self) -> None:
        """See the base."""
        self._run.finish()


class MLflow(Tracker):
    """MLflow: the store that $MLFLOW_TRACKING_URI names, else an SQLite file in the run folder."""

    name = package = "mlflow"

    @classmethod
    def where(cls, folder: Path) -> str:
        """See the base."""
        return f"mlflow ui --backend-store-uri {_store(folder.absolute())}"

    def begin(self, identity: str | None, config: Mapping[str, Json], *, step: int | None) -> str:
        """See the base."""
        (self.folder / self.name).mkdir(exist_ok=True)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=_store(self.folder))
        self._last: dict[str, int] = {}
        if identity is not None:
            self._run = identity
            self._client.update_run(identity, status="RUNNING")
            return identity
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._begin_experiment()
        self._run = self._client.create_run(number, run_name=self.title).info.run_id
        items = list(config.items())
        for i in range(0, len(items), _MOST_PARAMETERS):
            params = [Param(key, str(v)[:500]) for key, v in items[i : i + _MOST_PARAMETERS]]
            self._client.log_batch(self._run, params=params)
        return self._run

    def _begin_experiment(self) -> str:
        if "MLFLOW_TRACKING_URI" in os.environ:
            return self._client.create_experiment(PROJECT)
        place = (self.folder / self.name / "artifacts").as_uri()
        return self._client.create_experiment(PROJECT, artifact_location=place)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers; those that an attempt before has shown are left as they are."""
        from mlflow.entities import Metric

        new = {_allowed(name): value for name, value in values.items()}
        new = {name: value for name, value in new.items() if step > self._last_step(name)}
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[Metric(name, float(v), now, step) for name, v in new.items()]
        )
        self._last |= dict.fromkeys(new, step)

    def _last_step(self, name: str) -> int:
        """The last step at which a number was shown; -1: none."""
        if name not in self._last:
            history = self._client.get_metric_history(self._run, name)
            self._last[name] = max((metric.step for metric in history), default=-1)
        return self._last[name]

    def summarise(self, values: Mapping[str, float]) -> None:
        """See the base."""
        self.log(0, {f"summary/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """See the base."""
        self._client.set_terminated(self._run)


_MOST_PARAMETERS = 100  # of one call


def _store(folder: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"


def _allowed(name: str) -> str:
    """Return a name with what MLflow has no letters for replaced by `_`."""
    return "".join(letter if letter.isalnum() or letter in "_-. /:" else "_" for letter in name)


@contextlib.contextmanager
def _own_folders(folder: Path) -> Iterator[None]:
    """Within the block wandb's folders lie in the run's, unless the user placed them elsewhere."""
    own = {f"WANDB_{kind}_DIR": str(folder / "wandb") for kind in ("CACHE", "CONFIG", "DATA")}
    set_here = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(set_here)
    try:
        yield
    finally:
        for name in set_here:
            del os.environ[name]


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
}
"""Every tracker; one that joins is a class, a line here and its name in `TrackerName`."""


def numbers_in(values: Mapping[str, Json]) -> dict[str, float]:
    """Return what of flat data a tracker can show: numbers, and no truth values or words."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
