"""Each tutorial, followed word for word: its files written, its commands given, in an empty folder.

A block of `yaml` or `python` whose first line is a comment with a file's name becomes that file, a
block of `bash` is given, and a block of `text` is what was printed. Where it begins with `error:`,
the command before it must fail so.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documentation import ROOT, TUTORIALS, name_of

CLUSTER = "first_cluster_run"
_SECONDS = 1800  # waiting on a busy machine is no failure, a command that hangs is


@dataclass(frozen=True)
class Block:
    """A fenced block of a tutorial."""

    language: str
    text: str
    shown: str
    """The block of `text` behind a command; else empty."""

    @property
    def file(self) -> str | None:
        """Name of the file that it becomes."""
        named = re.match(r"# (\w+\.(?:yaml|py))\n", self.text)
        return named.group(1) if named else None


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    after = [text if language == "text" else "" for language, text in found[1:]] + [""]
    pairs = zip(found, after, strict=True)
    return [Block(language, text, shown) for (language, text), shown in pairs]


def follow(page: Path, folder: Path) -> str:
    """Do what a tutorial says, in one shell's environment; return all that was printed.

    Args:
        page: the tutorial.
        folder: an empty one.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, words in {"dwf": "-m dwf", "python": ""}.items():
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (bin_folder / name).chmod(0o755)
    work = folder / "work"
    work.mkdir()
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DWF_DATA": str(folder / "data"),
        "DWF_CLUSTER": str(work / "site.yaml") if page.stem == CLUSTER else "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    said = []
    for block in blocks_of(page):
        if block.language == "bash":
            said.append(give(block, work, environment=environment))
            if page.stem == CLUSTER:  # others show what was measured
                refuse_other_words(block.shown, said[-1])
        elif block.file:
            (work / block.file).write_text(block.text)
        else:
            assert block.language == "text", f"{page.name}: what is this block?\n{block.text}"
    return "\n".join(said)


def give(block: Block, work: Path, *, environment: dict[str, str]) -> str:
    # Its exit code says that a zoo is not whole yet.
    commands = re.sub(r"^dwf status .*$", r"\g<0> || test $? -eq 1", block.text, flags=re.MULTILINE)
    ran = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    )
    print(f"$ {commands}{ran.stdout}")
    if block.shown.startswith("error:"):
        assert ran.returncode == 2, ran.stdout
        for line in block.shown.splitlines():
            assert line.rstrip(" .") in ran.stdout, f"{line}\nis not in\n{ran.stdout}"
    else:
        assert ran.returncode == 0, f"{commands}{ran.stdout}"
    return ran.stdout


def _without_chance(said: str) -> str:
    """Return words of which numbers, blanks, and whether a job has begun are the same always."""
    words = re.sub(r"\d+", "0", " ".join(said.split()))
    return re.sub(r"\b(is|are) queued", r"\1 running", words)


def refuse_other_words(shown: str, printed: str) -> None:
    """Each line that is shown was printed, whatever its numbers; `...` stands for what is left out.

    How far jobs are depends on their speed.
    """
    found = _without_chance(printed)
    for part in re.split(r"\n|\.\.\.", shown):
        line = _without_chance(part)
        assert line in found or "shards that its job is to make" in line, f"{part}\n{printed}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in TUTORIALS if page.stem != CLUSTER], ids=lambda page: page.stem
)
def test_a_tutorial_does_what_it_says(page, tmp_path):
    follow(page, tmp_path)


@pytest.mark.slow
@pytest.mark.cluster
def test_the_first_run_on_a_cluster(slurm, tmp_path):
    (page,) = (page for page in TUTORIALS if page.stem == CLUSTER)
    said = follow(page, tmp_path)
    assert "32 rows in" in said
    assert slurm("sacct", "-X", "-n", "-o", "State").split()


@pytest.mark.parametrize("page", TUTORIALS, ids=name_of)
def test_a_tutorial_is_short_and_shows_what_is_printed(page):
    assert 50 <= len(page.read_text().splitlines()) <= 145
    blocks = blocks_of(page)
    assert any(block.shown for block in blocks)
    assert [block for block in blocks if block.language == "bash"]
