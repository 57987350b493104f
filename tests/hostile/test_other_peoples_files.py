"""Files that the system does not open are never called damaged; other people's zoos are built on.

Errors of the system are raised at the real calls, as root ignores permissions. Expected: the
errors' own names and paths, the files' bytes before and after, and Slurm's lists of variables.
"""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from dwf import preemption, run_folder, source
from dwf.codecs.codec import Codec
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError, CorruptCheckpoint, CorruptShard, DataUnavailable, RunConflict
from dwf.folders.kinds import KINDS, Place
from dwf.folders.status import read_standing
from dwf.metrics import MetricsLog
from dwf.networks.imported import import_network
from dwf.run_folder import RunFolder, hold, load_state, save_state, write_json
from dwf.settings import build
from dwf.stages import Product, stage
from dwf.sweeps.config import AxisConfig
from dwf.system_errors import of_system, sentence_of
from dwf.zoo import care
from dwf.zoo.config import ZooConfig
from dwf.zoo.hdf5 import made_in_memory
from dwf.zoo.shard import Shard, write_shard
from dwf.zoo.store import Zoo
from dwf.zoo.verify import find_damage
from dwf.zoo.view import write_view

NUMBERS = (errno.EACCES, errno.EIO, errno.ESTALE)


def fail(monkeypatch, path: Path, number: int) -> None:
    """Let the system refuse one file, whoever opens it."""
    opened, os_opened, h5 = open, os.open, h5py.File

    def refusing(call):
        def refused(file, *words, **named):
            if isinstance(file, (str, os.PathLike)) and Path(file) == path:
                raise OSError(number, os.strerror(number), str(file))
            return call(file, *words, **named)

        return refused

    def of_hdf5(file, *words, **named):
        if Path(file) == path:  # as h5py has it: the number, and no name but in the text
            raise OSError(number, f"Unable to open file (errno = {number}, name = '{file}')")
        return h5(file, *words, **named)

    monkeypatch.setattr("builtins.open", refusing(opened))
    monkeypatch.setattr("io.open", refusing(opened))
    monkeypatch.setattr(os, "open", refusing(os_opened))
    monkeypatch.setattr(h5py, "File", of_hdf5)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return each file's time of change and bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


# --- what cannot be opened is not damaged --------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["shard-00000-of-00001.h5", "zoo.h5"])
def test_verify_never_removes_what_it_could_not_read(make_zoo, monkeypatch, capsys, number, name):
    zoo = make_zoo()
    fail(monkeypatch, zoo.path / name, number)
    (found,) = find_damage(zoo.path)
    assert found.file == zoo.path / name and not found.is_readable
    assert os.strerror(number) in found.reason and str(found.file) in found.reason
    assert care.verify((zoo.path,), mend=True) == 1
    told = capsys.readouterr().out
    assert "rm " not in told and "mend it" not in told and "may be sound" in told
    monkeypatch.undo()
    assert not find_damage(zoo.path)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_shard_that_cannot_be_opened_is_told_with_its_path(make_zoo, monkeypatch, capsys, number):
    zoo = make_zoo()
    file = zoo.path / "shard-00000-of-00001.h5"
    fail(monkeypatch, file, number)
    with pytest.raises(OSError) as caught:
        Zoo.open(zoo.path)
    assert (caught.value.errno, caught.value.filename) == (number, str(file))
    assert care.status((zoo.path,)) == 1
    told = capsys.readouterr().out
    assert "cannot be read" in told and "damaged:" not in told
    assert read_standing(Place(zoo.path, KINDS["zoo"])).state != "damaged"


def test_other_locks_on_a_shard_are_no_damage(make_zoo):
    zoo = make_zoo()
    file = zoo.path / "shard-00000-of-00001.h5"
    with h5py.File(file, "r", locking=True), pytest.raises(OSError) as caught:
        Shard(file, zoo.facts, index=0)
    assert caught.value.errno == errno.EBUSY and caught.value.filename == str(file)


def test_broken_structure_is_damage_still(make_zoo):
    zoo = make_zoo()
    file = zoo.path / "shard-00000-of-00001.h5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CorruptShard, match="is damaged"):
        Shard(file, zoo.facts, index=0)
    (found, *_) = find_damage(zoo.path)
    assert found.is_readable and found.file == file


@pytest.mark.parametrize("number", NUMBERS)
def test_a_saved_state_that_cannot_be_read_stays(tmp_path, monkeypatch, number):
    from dwf.training.checkpoint import load_newest, step_file

    file = step_file(tmp_path, 1)
    save_state(file, {"a": 1})
    fail(monkeypatch, file, number)
    with pytest.raises(OSError) as caught:
        load_newest(tmp_path)  # else it were set aside as *.damaged
    assert caught.value.errno == number
    monkeypatch.undo()
    assert load_state(file) == {"a": 1}
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CorruptCheckpoint):
        load_state(file)


def test_a_codec_that_cannot_be_read_is_not_to_be_fitted_again(tmp_path, monkeypatch):
    with pytest.raises(RunConflict, match="no whole codec"):
        Codec.load(tmp_path)
    file = tmp_path / "codec.json"
    file.write_text("{}")
    fail(monkeypatch, file, errno.EACCES)
    with pytest.raises(PermissionError) as caught:
        Codec.load(tmp_path)
    assert caught.value.filename == str(file)


def test_a_sentence_for_each_error():
    def told(number: int) -> str:
        return sentence_of(OSError(number, "", "/far/away"))

    numbers = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ENAMETOOLONG)
    assert len({told(number).partition(". ")[2] for number in numbers}) == len(numbers)
    assert all(told(number).startswith(f"{os.strerror(number)}: /far/away") for number in numbers)
    assert "space" in told(errno.ENOSPC) and "space" not in told(errno.EACCES)
    assert of_system(OSError("truncated file"), "x") is None
    assert of_system(RuntimeError("write failed (errno = 28)"), "x").errno == errno.ENOSPC


# --- file systems without locks -------------------------------------------------------------------


def test_hdf5_takes_no_lock_on_a_name_that_is_its_writers_alone(make_zoo, monkeypatch):
    taken, h5 = [], h5py.File

    def noted(*words, **named):
        taken.append(named.get("locking"))
        return h5(*words, **named)

    zoo = make_zoo()
    monkeypatch.setattr(h5py, "File", noted)
    columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
    blocks = [(columns, zoo.read())]
    write_shard(zoo.path / "other.h5", zoo.facts, index=0, num_rows=len(zoo), blocks=blocks)
    assert taken == [False]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_work_goes_on_without_locks_and_warns_once(tmp_path, monkeypatch, caplog, number):
    def no_locks(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(run_folder.fcntl, "flock", no_locks)
    monkeypatch.setattr(run_folder, "_without_locks", set())
    for name in ("one", "two"):
        with hold(tmp_path / name):
            pass
    assert caplog.text.count("has no locks") == 1


# --- finished folders of others -------------------------------------------------------------------


def test_a_finished_run_is_not_touched(tmp_path):
    whole = Product("zoo", records="run")
    with stage(whole, tmp_path / "one", config={"seed": 1}) as run:
        run.finish(rows=3)
    before = tree(tmp_path)
    for config in ({"seed": 1}, {"seed": 1, "compute": {"save_seconds": 3}}):
        with stage(whole, tmp_path / "one", config=config) as again:
            assert again is None
    assert tree(tmp_path) == before
    with pytest.raises(RunConflict, match="seed"), stage(whole, tmp_path / "one", config={}):
        pass
    assert tree(tmp_path) == before


# --- no numbers, no rows --------------------------------------------------------------------------


def zoo_settings(**more) -> dict:
    return {
        "network": {"kind": "mlp", "widths": [64, 8, 10]},
        "data": {"kind": "digits", "validation": 0.0},
        "count": 2,
    } | more


@pytest.mark.parametrize("keep", [{"kind": "best"}, {"kind": "above", "accuracy": 0.5}])
def test_rows_chosen_on_validation_images_need_some(keep):
    with pytest.raises(ConfigError, match=r"data\.validation = 0"):
        build(ZooConfig, zoo_settings(keep=keep), source="x.yaml")
    build(ZooConfig, zoo_settings(), source="x.yaml")


def test_a_zoo_of_no_rows_is_an_error(make_zoo):
    from dwf.errors import TooFewNetworks
    from dwf.zoo.stage import _refuse_empty

    zoo = make_zoo()
    _refuse_empty(zoo)
    empty = Zoo(zoo.path, zoo.facts, shards=[])
    with pytest.raises(TooFewNetworks, match="0 rows"):
        _refuse_empty(empty)


def test_json_holds_no_nan(tmp_path):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    write_json(tmp_path / "a.json", {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf}})
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(0, loss=math.nan, accuracy=np.float64("inf"), networks=3)
    log.close()
    told = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert told == {"a": [None, 1.5, [None]], "b": {"c": None}}
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(lines, parse_constant=refuse)["loss"] is None


# --- settings, names and signals ------------------------------------------------------------------


def test_settings_that_change_no_byte_may_change(tmp_path):
    machine = {"workers": None, "compute": {"save_seconds": 300.0, "precision": "float32"}}
    RunFolder(tmp_path / "run", machine).finish()
    other = {"workers": 3, "compute": {"save_seconds": 5.0, "precision": "float32"}}
    RunFolder(tmp_path / "run", other)
    other["compute"]["precision"] = "bf16"
    with pytest.raises(RunConflict, match="precision"):
        RunFolder(tmp_path / "run", other)


def test_a_refused_fit_frees_its_name(tmp_path):
    run = RunFolder(tmp_path / "run", {"components": 99})
    (run.part("codec").path / "checkpoints").mkdir()  # a part that never began
    assert RunFolder(tmp_path / "run", {"components": 11}).config == {"components": 11}
    save_state(tmp_path / "run" / "codec" / "checkpoints" / "step-1.pt", {"a": 1})
    with pytest.raises(RunConflict, match="components"):
        RunFolder(tmp_path / "run", {"components": 12})


def test_values_of_sweeps_that_yaml_takes_for_words_are_numbers():
    assert AxisConfig(grid=("1e-3", "2E+4", ".5e1", "adam", "1e", True)).values == (
        *(0.001, 20000.0, 5.0, "adam", "1e", True),
    )
    with pytest.raises(ValueError, match="differ"):
        AxisConfig(choice=("1e-3", 0.001))


def test_text_is_utf8_whatever_the_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dwf.run_folder import write_text; "
        "write_text(Path(sys.argv[1]), 'gr\\u00f6\\u00dfer \\u2192')"
    )
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], env=os.environ | locale, check=True
    )
    assert (tmp_path / "a.txt").read_bytes() == "größer →".encode()


def test_a_hangup_asks_to_save_unless_nohup_asked_to_go_on(monkeypatch):
    monkeypatch.setattr(preemption, "_previous", {})
    monkeypatch.setattr(preemption, "_asked", [])
    before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        preemption.watch()
        signal.raise_signal(signal.SIGHUP)
        assert preemption.asked_by() == (signal.SIGHUP,)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        preemption.watch()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_file_found_in_place_of_the_users_module_is_named(tmp_path, monkeypatch):
    from dwf import trust
    from dwf.networks.config import PythonConfig

    (tmp_path / "found_instead.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    config = PythonConfig(target="found_instead:make")
    trust.trust_code(config.target)
    with pytest.raises(ConfigError, match=str(tmp_path / "found_instead.py")):
        import_network(config)


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    from dwf.datasets import cache

    fail(monkeypatch, tmp_path / "lock", errno.EROFS)
    said = pytest.raises(DataUnavailable, match=r"\$DWF_DATA.*Read-only")
    with said, cache._one_at_a_time(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("git"), reason="needs root and git")
def test_the_commit_of_another_owners_checkout_is_recorded(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    words = ["git", "-C", tmp_path, *who, "commit", "-q", "--allow-empty", "-m", "one"]
    subprocess.run(words, check=True)
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 65534, 65534)
    monkeypatch.setattr(source, "_checkout", lambda: tmp_path)
    assert len(source.commit() or "") == 12
    shutil.rmtree(tmp_path / ".git" / "objects")
    told = source.commit_facts()
    assert told["commit"] is None and told["no_commit"]


def test_a_dry_run_refuses_a_network_that_does_not_fit_its_data(monkeypatch):
    from dwf.zoo.cohorts import measure_rate

    told = zoo_settings(network={"kind": "mlp", "widths": [5, 8, 10]}, data={"kind": "digits"})
    config = build(ZooConfig, told, source="x.yaml")
    with pytest.raises(ConfigError, match="5"):
        measure_rate(config, load_dataset(config.data))


@pytest.mark.parametrize("front", [0, 512])
def test_a_file_made_in_memory_is_that_made_on_disk(tmp_path, front):
    def fill(file: h5py.File) -> None:
        file["numbers"] = np.arange(5000)
        file["numbers"].attrs["kind"] = "words"

    with h5py.File(tmp_path / "disk.h5", "w", userblock_size=front) as file:
        fill(file)
    with made_in_memory(tmp_path / "memory.h5", front) as file:
        fill(file)
    assert (tmp_path / "memory.h5").read_bytes() == (tmp_path / "disk.h5").read_bytes()


def test_a_full_disk_is_an_error_and_no_crash(make_zoo, monkeypatch):
    """A limit on the size of files fails writes as a full disk does, at any byte."""
    import resource

    zoo = make_zoo()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = (zoo.path / "zoo.h5").read_bytes()
    monkeypatch.setattr(run_folder.os, "fsync", lambda number: None)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for most in range(0, len(whole), 1024):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
            with pytest.raises(OSError) as caught:
                write_view(zoo.path, zoo.facts, shards=zoo.shards, columns=zoo.columns)
            assert caught.value.errno == errno.EFBIG and "zoo.h5" in caught.value.filename
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (zoo.path / "zoo.h5").read_bytes() == whole
    write_view(zoo.path, zoo.facts, shards=zoo.shards, columns=zoo.columns)
    assert (zoo.path / "zoo.h5").read_bytes() == whole
