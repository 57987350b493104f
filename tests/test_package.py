"""dwf as a wheel: what is in it, and that it works in a folder of its own, away from the checkout.

The wheel is built from a copy of the tracked folders and installed without its dependencies, which
are those of the tests.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import dwf

ROOT = Path(__file__).parent.parent
SOURCES = ("dwf", "configs", "slurm", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
SOURCES += ("LICENSE", "CITATION.cff", "constraints.txt")
JOB = """
from pathlib import Path
from dwf.cluster.config import SiteConfig
from dwf.cluster.ranked import RankedJob
print(*RankedJob(Path("/results/runs/g"), 2, site=SiteConfig(time="60")).command(), sep="\\n")
"""


def test_versions_agree():
    setup = re.search(r'version="(.*)"', (ROOT / "setup.py").read_text()).group(1)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dwf.__version__ == setup == str(cited["version"])
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


@dataclass(frozen=True)
class Installed:
    """dwf in a folder of its own."""

    wheel: Path
    target: Path
    elsewhere: Path
    """Folder in which commands are given."""

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        path = {"PYTHONPATH": str(self.target), "OMP_NUM_THREADS": "1"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "DWF_"))}
        return subprocess.run(
            words,
            cwd=self.elsewhere,
            env=kept | path | environment,
            capture_output=True,
            text=True,
        )

    def dwf(self, line: str) -> str:
        """What a command prints, which must not fail."""
        ran = self.run(sys.executable, str(self.target / "bin" / "dwf"), *shlex.split(line))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def python(self, program: str) -> str:
        ran = self.run(sys.executable, "-c", program)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    folder = tmp_path_factory.mktemp("package")
    source, target, elsewhere = (folder / name for name in ("source", "target", "elsewhere"))
    for path in (source, elsewhere):
        path.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    where = ["--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, "install", *where, str(wheel)], check=True)
    return Installed(wheel, target, elsewhere)


@pytest.mark.slow
def test_the_wheel_holds_code_presets_and_scripts(installed):
    names = {
        name for name in zipfile.ZipFile(installed.wheel).namelist() if "dist-info" not in name
    }
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dwf").rglob("*.py")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "dwf").rglob("*.json")}
    for folder in ("configs", "slurm"):
        files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
        expected |= {f"dwf/files/{path.relative_to(ROOT).as_posix()}" for path in files}
    assert names == expected


@pytest.mark.slow
def test_commands_find_presets_from_another_folder(installed):
    files = installed.target / "dwf" / "files"
    assert installed.dwf("--version") == f"dwf {dwf.__version__}\n"
    listed = installed.dwf("list")
    assert f"presets lie in {files / 'configs'}" in listed
    assert len(re.findall(r"^  \S", listed, re.MULTILINE)) == len([*files.rglob("*.yaml")])
    said = installed.dwf("zoo --config iris_mlp --dry-run")
    assert "130 networks" in said
    steps = "generator.density.training.steps=2000"
    said = installed.dwf(f"pipeline --config digits_neurons --set {steps} --dry-run")
    assert "16896 networks" in said.replace(",", "") and re.search(r"\b2,?000\b", said)
    for command in ("align --zoo any", "sample --generator any"):  # whose default is a preset
        assert installed.dwf(f"{command} --dry-run")
    assert not list(installed.elsewhere.iterdir()), "a dry run touches nothing"


@pytest.mark.slow
def test_a_library_that_is_missing_is_named_as_its_metadata_do(installed):
    said = installed.python("from dwf.extras import pip_command as p; print(p('cluster'))")
    assert said.startswith("pip install") and "ray[tune]" in said and "optuna" in said
    assert "dwf" not in said


@pytest.mark.slow
def test_a_submitted_job_finds_its_scripts_and_runs_the_package(installed, tmp_path):
    """The script that `sbatch` would be given, run with an `srun` that says what it was given."""
    words = installed.python(JOB).splitlines()
    (folder,) = (word.partition("=")[2] for word in words if word.startswith("--chdir="))
    assert folder == str(installed.target / "dwf" / "files")
    script = words.index("slurm/generator.sh")
    played = tmp_path / "srun"
    played.write_text('#!/bin/bash\necho "SAID $*"\n')
    played.chmod(0o755)
    told = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n01", "SLURM_CPUS_ON_NODE": "4"}
    told |= {"SLURM_JOB_NUM_NODES": "2", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = f"cd {shlex.quote(folder)} && bash {shlex.join(words[script:])}"
    ran = installed.run("bash", "-c", line, **told)
    assert ran.returncode == 0, ran.stderr
    command = ran.stdout.partition("SAID ")[2].split()
    at = command.index("python")
    given = "python -u -m dwf generator --resume --name g --root /results"
    assert command[at:] == given.split()
    python = f"cd {shlex.quote(folder)} && {sys.executable} -m dwf --version"
    started = installed.run("bash", "-c", python)
    assert started.stdout == f"dwf {dwf.__version__}\n", started.stderr
