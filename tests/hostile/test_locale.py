"""Names and texts are UTF-8, whatever the locale says.

Commands run in the locale C without Python's own remedy for it. Expected are the files' bytes, as
the name is in UTF-8 by the standard: C3 B6 for o with two dots, C3 9F for the German double s.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwf.errors import exit_cleanly
from dwf.names import why_no_name
from dwf.run_folder import hold
from dwf.zoo.store import Zoo

ROOT = Path(__file__).parents[2]
NAME = "gr\u00f6\u00dfe"
BYTES = b"gr\xc3\xb6\xc3\x9fe"
SMALL = [
    *("--count", "4", "--recipe.epochs", "1", "--shard", "4"),
    *("--split.val", "0.25", "--split.test", "0.25", "--track", "none"),
]


def run_in_c(*words: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command in the locale C, where Python leaves all to ASCII."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | locale | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dwf", *words]
    return subprocess.run(command, capture_output=True, env=environment, cwd=ROOT)


def test_what_is_printed_is_utf_8(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    ran = run_in_c("status", "--root", str(folder))
    assert BYTES in ran.stdout + ran.stderr and b"Traceback" not in ran.stderr


def test_a_path_of_other_bytes_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xf6\xdfe")
    monkeypatch.setattr(sys, "argv", ["dwf", "zoo", "--root", folder])

    def main():
        with hold(Path(folder)):
            pass

    with pytest.raises(SystemExit) as left:
        exit_cleanly(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and "no UTF-8" in line and line.isascii()
    assert "UTF-8" in why_no_name("gr\udcf6")


@pytest.mark.slow
def test_a_zoo_is_trained_under_any_name(tmp_path):
    file, root = tmp_path / f"{NAME}.yaml", tmp_path / NAME
    text = (ROOT / "configs" / "zoo" / "iris_mlp.yaml").read_text(encoding="utf-8")
    file.write_text(f"# {NAME}\n{text}", encoding="utf-8")
    ran = run_in_c("zoo", "--config", str(file), "--root", str(root), "--name", NAME, *SMALL)
    assert ran.returncode == 0, ran.stderr.decode()
    assert len(Zoo.open(root / "zoos" / NAME)) == 4
    assert BYTES in (root / "zoos" / NAME / "run" / "command.txt").read_bytes()
