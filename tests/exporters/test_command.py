"""The command itself: killed and given again, and what a user's mistake looks like."""

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwf.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def script():
    return importlib.import_module("dwf.commands.export")


def words(zoo, folder, *more: str) -> list[str]:
    root = str(zoo.path.parent.parent)
    return ["--zoo", zoo.name, "--root", root, "--to", str(folder), *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_killed_export_goes_on_to_equal_files(make_zoo, script, tmp_path, capsys):
    """SIGKILL among 1,500 files; the same command writes what is missing."""
    zoo = make_zoo(1500, name="many")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "export.py"), *words(zoo, killed)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    # At the first files: on a busy machine the rest would be written before they are counted.
    while not any(killed.glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "lock").exists()
    there = len(list(killed.glob("*.safetensors")))
    assert 0 < there < 1500, "killed too early or too late to show anything"
    for folder in (killed, whole):
        script.main(words(zoo, folder))
    assert contents(killed) == contents(whole) and len(contents(whole)) == 1501
    assert "1500 networks of many as safetensors in" in capsys.readouterr().out


def test_mistakes_are_told_before_anything_is_written(zoo, script, tmp_path, capsys):
    folder = tmp_path / "out"
    script.main(words(zoo, folder, "--rows", "1", "2", "--dry-run"))
    assert "2 networks in 2 files" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="rows = 99"):
        script.main(words(zoo, folder, "--rows", "1", "99"))
    with pytest.raises(ConfigError, match="one of them chooses"):
        script.main(words(zoo, folder, "--best", "1", "--random", "1"))
    with pytest.raises(ConfigError, match=r"format = 'onyx': allowed is one of .*mean 'onnx'"):
        script.main(words(zoo, folder, "--format", "onyx"))
    assert not folder.exists()
