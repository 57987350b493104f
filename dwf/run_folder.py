"""The folder of one run: what ran, with which settings, what it logged, whether it is finished.

    config.yaml  command.txt  environment.json  uncommitted.diff  metrics.jsonl  checkpoints/
    done.json    written last: the run is finished, and this is its summary

Everything is written under a temporary name, flushed to disk, then renamed: a file with its final
name is whole.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import pickle
import platform
import shlex
import shutil
import sys
import time
import uuid
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import yaml

from dwf import screen
from dwf.errors import CorruptCheckpoint, DwfError, RunConflict
from dwf.files import NO_CODE, open_own, read_json, refuse_inflation, refuse_irregular
from dwf.metrics import MetricsLog, logger
from dwf.plain import Json, Settings, State, finite
from dwf.same_settings import refuse_other_settings
from dwf.settings import flatten, to_dict
from dwf.source import commit_facts, uncommitted
from dwf.system_errors import of_system
from dwf.systems import job_facts
from dwf.trackers import RECORD as TRACKERS
from dwf.trackers import Tracker, numbers_in, open_trackers

if TYPE_CHECKING:
    import torch

LOCK, METRICS = "lock", "metrics.jsonl"
KEEP_CHECKPOINTS = "compute.keep_checkpoints"
"""End of the dotted key by which settings of a training keep its saved states."""
LEFTOVERS = "*.partial-*"
"""Pattern of the temporary names of `replacing`."""
MEETING = ".{}.ranks-{}"
"""Name, beside a run's folder, of the file by which the ranks of one attempt meet."""
_SHARED_LOCK = ".lock"
_BLOCK_BYTES = 16 * 2**20
_FLUSHES = 64  # files that wait for the disk at a time
_RECORDS = {
    *("config.yaml", "command.txt", "environment.json", "uncommitted.diff"),
    *(LOCK, screen.FILE, TRACKERS),
}
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)  # the kernel's own ENOTSUPP, last
_without_locks: set[int] = set()  # file systems that were warned of
_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "h5py", "torchdiffeq", "scikit-learn")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path of this attempt alone; on success flush it and rename it to `path`.

    On failure the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{uuid.uuid4().hex[:12]}")
    try:
        yield partial
        _flush([partial])
        os.replace(partial, path)
    except OSError as error:
        if error.errno and error.filename is None:  # a full disk, told without the file's name
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_alone(path: Path) -> Iterator[Path]:
    """Yield a temporary path as `replacing` does, of a file that many commands write.

    One process at a time does so, and first removes what killed ones left of this file.
    """
    with hold(path.parent, math.inf, lock=_SHARED_LOCK):
        sweep(path.parent.glob(f"{glob.escape(path.name)}.partial-*"))
        with replacing(path) as partial:
            yield partial


@contextlib.contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path for each of many small files; see `replacing`.

    They are flushed side by side, which costs a disk about as much as one of them.
    """
    tag = f"partial-{uuid.uuid4().hex[:12]}"
    partials = [path.with_name(f"{path.name}.{tag}") for path in paths]
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield partials
        with ThreadPoolExecutor(_FLUSHES) as pool:
            list(pool.map(_flush, (partials[start::_FLUSHES] for start in range(_FLUSHES))))
        for partial, path in zip(partials, paths, strict=True):
            os.replace(partial, path)
    except BaseException:
        sweep(partials)
        raise


def _flush(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)  # not `open`, whose buffer costs as much as it
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex; it is read a block at a time."""
    digest = hashlib.sha256()
    refuse_irregular(path)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sweep(leftovers: Iterable[Path]) -> None:
    """Remove partial files that killed attempts left; call it where nobody else writes.

    Args:
        leftovers: the files, as `folder.glob(LEFTOVERS)` finds them.
    """
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(folder: Path, seconds: float = 2.0, *, lock: str = LOCK) -> Iterator[None]:
    """Be the only process that writes in a run folder; the system frees it when the process ends.

    Args:
        folder: the run folder; made if it is missing.
        seconds: how long to wait for another process to leave it; some only look in.
        lock: name of the lock's file.

    Raises:
        RunConflict: another process holds it; names the process and its machine.
        DwfError: no file of dwf's lies in the lock's place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_own(folder / lock, "a+") as file:
        end = time.monotonic() + seconds
        while not _lock(file, folder):
            if time.monotonic() >= end:
                raise RunConflict(
                    f"{folder} is being worked on by {_named_in(file)}: "
                    "wait for it, or stop it and give the command again"
                )
            time.sleep(0.1)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()} ({shlex.join(sys.argv)})\n")
        file.flush()
        yield


def holder(folder: Path) -> str | None:
    """Return who holds a run folder; None where nobody does, or it cannot be known."""
    with contextlib.suppress(OSError, DwfError), open_own(folder / LOCK, "r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named_in(file)
    return None


def _named_in(file: IO) -> str:
    file.seek(0)
    return file.read().strip() or "another process"


def _lock(file: IO, folder: Path) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        device = os.fstat(file.fileno()).st_dev
        if device not in _without_locks:
            _without_locks.add(device)
            logger.warning("%s: this file system has no locks: start one command at a time", folder)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Json) -> None:
    """Write a whole JSON file, or leave what was there; numbers that are not finite are null."""
    write_text(path, json.dumps(finite(data), indent=1, allow_nan=False) + "\n")


def save_state(path: Path, state: State) -> None:
    """Write tensors, numbers, words and containers of them as one whole file, or leave what was."""
    import torch

    with replacing(path) as partial, open(partial, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # what torch makes of a full disk
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_state(
    path: Path,
    device: "torch.device | str" = "cpu",
    *,
    cure: str = "remove it and give the command again",
) -> dict[str, State]:
    """Read what `save_state` wrote; nothing in the file is executed.

    Args:
        path: the file.
        device: where its tensors go.
        cure: what to do about a damaged one, for the error.

    Raises:
        CorruptCheckpoint: the file is truncated or altered.
        OSError: it cannot be opened or read; it may be sound.
    """
    import torch

    refuse_irregular(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            for one in archive.infolist():
                refuse_inflation(one.compress_size, one.file_size, what=one.filename)
            altered = archive.testzip()
        if altered is None:
            return torch.load(path, map_location=device, weights_only=True)
        reason = f"{altered} does not match its checksum"
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError:  # whose own words tell how to run it
        reason = NO_CODE
    except Exception as error:  # what altered bytes raise depends on where they lie
        if told := of_system(error, path):
            raise told from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise CorruptCheckpoint(f"{path} is damaged ({reason}): {cure}")


class RunPart:
    """A folder in a run's for one thing that learns: its checkpoints and metrics.

    Args:
        path: the folder; made if it is missing.
        config: the run's settings, plain data, which trackers show.
    """

    def __init__(self, path: Path, config: dict[str, Json] | None = None):
        self.path, self.config = Path(path), config or {}
        self.path.mkdir(parents=True, exist_ok=True)

    def log(self, step: int = 0) -> MetricsLog:
        """Return the metrics, and trackers, of a run that goes on after a step."""
        return MetricsLog(self.metrics_path, step, trackers=self.trackers(step))

    def trackers(self, step: int | None = None) -> Sequence[Tracker]:
        """Return the process's trackers, opened for this run; see `open_trackers`."""
        return open_trackers(self.path, flatten(self.config), step=step)

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line: `step` and values with their units in the name."""
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        """Folder of the saved states."""
        return self.path / "checkpoints"

    def drop_checkpoints(self) -> None:
        """Remove the saved states of what has learnt here and in parts, unless settings keep them.

        Call it when what was learnt is whole on disk: nothing goes on from them any more.
        """
        settings = flatten(self.config).items()
        if any(value for key, value in settings if key.endswith(KEEP_CHECKPOINTS)):
            return
        for saved in [
            *self.path.glob("checkpoints/step-*"),
            *self.path.glob("*/checkpoints/step-*"),
        ]:
            if saved.is_dir():
                shutil.rmtree(saved, ignore_errors=True)
            else:
                saved.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are there, or it is gone
                saved.parent.rmdir()


class RunFolder(RunPart):
    """One run's record on disk.

    Args:
        path: the folder; made if it is missing.
        config: the run's settings, a dataclass or plain data.
        free: dotted keys of settings that may have other values than the run's, as those by which
            it is widened; the run has the new values from then on.

    Raises:
        RunConflict: the folder holds a run with other settings; names the first key that differs.
    """

    def __init__(
        self, path: Path, config: Settings | dict[str, Json], *, free: Collection[str] = ()
    ):
        super().__init__(path, to_dict(config))
        self.threads: int | None = None
        """Threads that torch is to compute on; None: not known, or of no concern."""
        self._take_settings(config, free)
        self._record_attempt()

    @classmethod
    def finished(
        cls, path: Path, config: Settings | dict[str, Json], *, free: Collection[str] = ()
    ) -> Self | None:
        """Return a finished run of these settings; None of another, or of none. Writes nothing.

        Raises:
            RunConflict: see `RunFolder`.
        """
        if not (path / "done.json").exists() or not (path / "config.yaml").exists():
            return None
        if refuse_other_settings(path, config, free=free):
            return None
        return cls.beside(path, config)

    @classmethod
    def beside(
        cls, path: Path, config: Settings | dict[str, Json], *, threads: int | None = None
    ) -> Self:
        """Return a run that is there, without a mark of this attempt in its records.

        So other ranks have it than the first, which opens it.
        """
        run = cls.__new__(cls)
        RunPart.__init__(run, path, to_dict(config))
        run.threads = threads
        return run

    @property
    def config_path(self) -> Path:
        """The merged settings."""
        return self.path / "config.yaml"

    @property
    def environment_path(self) -> Path:
        """Code, machine and packages of the last attempt; threads of the first."""
        return self.path / "environment.json"

    def part(self, name: str) -> RunPart:
        """Return the folder of one part of the run, as of a codec that trains."""
        return RunPart(self.path / name, self.config)

    @property
    def summary(self) -> dict[str, Json] | None:
        """Summary that the finished run left; None while it is not finished."""
        done = self.path / "done.json"
        return read_json(done) if done.exists() else None

    def finish(self, **summary: Json) -> None:
        """Mark the run as finished; trackers show its numbers, and saved states are removed."""
        for tracker in self.trackers():
            tracker.summarise(numbers_in(flatten(summary)))
            tracker.close()
        write_json(self.path / "done.json", summary)
        self.drop_checkpoints()

    def keep_threads(self, ranks: int = 1) -> None:
        """Let `threads` be as many as when the run began.

        Where nothing is recorded, or for another number of ranks, those of now are recorded.
        """
        import torch

        now = {"threads": torch.get_num_threads(), "ranks": ranks}
        begun = _recorded_threads(self.environment_path)
        if begun.get("ranks") != ranks:
            begun = now
            told = read_json(self.environment_path) | now
            write_json(self.environment_path, told)
        elif begun != now:
            logger.info(
                "%s: computes on %d threads, as it was begun; %d would be free",
                *(self.path, begun["threads"], now["threads"]),
            )
        self.threads = begun["threads"]

    def reopen(self) -> None:
        """Take back that the run is finished, as where more was asked of it."""
        (self.path / "done.json").unlink(missing_ok=True)

    def _take_settings(self, config: Settings | dict[str, Json], free: Collection[str]) -> None:
        if self.config_path.exists() and self._is_unused():
            self.config_path.unlink()
            self.environment_path.unlink(missing_ok=True)
        if not self.config_path.exists() or refuse_other_settings(self.path, config, free=free):
            write_text(self.config_path, yaml.safe_dump(self.config, sort_keys=False))

    def _is_unused(self) -> bool:
        """Whether nothing came of the run, as where its settings were refused: its name is free."""
        results = [file for file in self.path.iterdir() if not _is_empty(file)]
        results = {file.name for file in results} - _RECORDS
        # The run of a zoo lies beside what it writes.
        beside = self.path.name == "run" and len(list(self.path.parent.iterdir())) > 1
        return not results and not beside

    def _record_attempt(self) -> None:
        with open_own(self.path / "command.txt", "a") as file:
            file.write(_command_line() + "\n")
        begun = _recorded_threads(self.environment_path)
        write_json(self.environment_path, _environment() | begun)
        difference = uncommitted()
        if difference:
            write_text(self.path / "uncommitted.diff", difference)


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but such folders, as those of parts that never began."""
    return folder.is_dir() and all(map(_is_empty, folder.iterdir()))


def _command_line() -> str:
    program, *words = sys.argv
    is_dwf = Path(program).name in ("dwf", "__main__.py")
    return shlex.join([*(["dwf"] if is_dwf else ["python", program]), *words])


def _recorded_threads(environment: Path) -> dict[str, int]:
    """The `threads` and `ranks` that a run was begun with; empty where it is not known."""
    try:
        told = read_json(environment)
        return {"threads": int(told["threads"]), "ranks": int(told["ranks"])}
    except (OSError, DwfError, ValueError, KeyError, TypeError):
        return {}


def _environment() -> dict[str, Json]:
    installed = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return {
        **commit_facts(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": installed,
        "job": job_facts(),
    }
