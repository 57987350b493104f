"""A stranger's folder runs no code; what the user names runs, and is remembered with its source."""

import dataclasses
import importlib
import json
import os
import stat
import sys
from pathlib import Path

import pytest
import yaml

from dwf import trust
from dwf.cluster import local
from dwf.codecs.config import FlatConfig
from dwf.commands import COMMANDS
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.networks.config import PythonConfig
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.source import source_digest
from dwf.stages import Work
from dwf.zoo.config import ZooConfig
from dwf.zoo.store import write_zoo

ROOT = Path(__file__).parent.parent
OWN = """
import pathlib
from torch import nn
pathlib.Path({marker!r}).touch()

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""
EVIL = "evil_networks:make"
ZOO = """
count: 4
network: {kind: python, target: "evil_networks:make"}
data: {kind: digits}
recipe: {epochs: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module that leaves a marker where it is imported; a command is given here."""
    (tmp_path / "evil_networks.py").write_text(OWN.format(marker=str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("evil_networks", None)


@pytest.fixture
def strangers(folder, make_zoo):
    """A zoo, an aligned zoo and a generator of a stranger's."""
    zoos = [make_zoo(), make_zoo(name="samples")]
    (folder / "tokens.yaml").write_text(GENERATOR)
    (folder / "best.yaml").write_text(SAMPLE)
    config = GeneratorConfig(zoo="small", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(config, folder, name="made")
    head = folder / "runs" / "made" / "generator.json"
    told = json.loads(head.read_text())
    told["origin"]["facts"]["network"] = {"kind": "python", "target": EVIL, "arguments": {}}
    head.write_text(json.dumps(told))
    for zoo in zoos:
        columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
        facts = dataclasses.replace(zoo.facts, network=PythonConfig(EVIL))
        write_zoo(zoo.path, facts, num_rows=len(zoo), blocks=[(columns, zoo.read())])
    assert not (folder / "ran").exists()


# Codecs that ask the network for its symmetry, selection by its accuracy; others take rows alone.
SAMPLE = "{generator: made, count: 2, selection: {kind: subsample}}"
GENERATOR = "{zoo: small, codec: {kind: neurons}, density: {kind: kde}}"
WORDS = {
    "align": ["--zoo", "small", "--name", "new"],
    "generator": ["--config", "tokens.yaml", "--name", "new"],
    "sample": ["--config", "best.yaml", "--name", "new"],
    "evaluate": ["--zoo", "small", "--samples", "samples", "--name", "new"],
}


def give(command: str, *words: str) -> None:
    COMMANDS[command].run([*WORDS[command], *words])


@pytest.mark.parametrize("command", WORDS)
def test_no_command_runs_what_a_strangers_folder_names(strangers, command):
    for words in (["--dry-run"], []):
        try:
            give(command, *words)
        except ConfigError as error:
            assert f"--trust-code {EVIL}" in str(error) and "\n" not in str(error)
        else:
            assert words, f"{command} ran"  # a plan may do without the network
        assert not Path("ran").exists()


def test_describing_a_strangers_zoo_runs_nothing_of_it(strangers, capsys):
    with pytest.raises(ConfigError, match=f"--trust-code {EVIL}"):
        COMMANDS["symmetry"].run(["zoos/small"])
    assert not Path("ran").exists()
    COMMANDS["symmetry"].run(["zoos/small", "--trust-code", EVIL])
    assert Path("ran").exists() and "16" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["os:system", "builtins:exec", "posix:abort"])
def test_functions_of_pythons_own_are_called_for_nobody(target):
    with pytest.raises(ConfigError, match=f"network.target = '{target}'.*--trust-code {target}"):
        build_network(PythonConfig(target, {"command": "touch ran"}))


def test_what_is_named_once_is_remembered_until_its_source_changes(folder, monkeypatch):
    config = PythonConfig(EVIL)
    trust.trust_code(EVIL)
    assert len(build_network(config)) == 4
    state = Path(os.environ["DWF_STATE"])
    assert stat.S_IMODE((state / "trusted.json").stat().st_mode) == 0o600

    def by_another_command():
        monkeypatch.setenv(trust.ENVIRONMENT, "")
        trust._approve.cache_clear()  # as a new process
        trust.refuse_stranger(EVIL, "network.target")

    by_another_command()
    own = folder / "evil_networks.py"
    own.write_text(f"{own.read_text()}\nimport layers\n")
    (folder / "layers.py").write_text("")
    with pytest.raises(ConfigError, match="source is another than when you trusted it"):
        by_another_command()
    trust.trust_code(EVIL)
    trust.refuse_stranger(EVIL, "network.target")
    by_another_command()
    (folder / "layers.py").write_text("import os")  # a module beside it that it imports
    with pytest.raises(ConfigError, match="source is another than when you trusted it"):
        by_another_command()


def test_a_list_that_others_may_write_is_refused(folder):
    trust.trust_code(EVIL)
    trust.refuse_stranger(EVIL, "network.target")
    (Path(os.environ["DWF_STATE"]) / "trusted.json").chmod(0o666)
    with pytest.raises(ConfigError, match="has mode 666"):
        trust.refuse_stranger("evil_networks:other", "network.target")


def test_source_is_found_without_importing_the_packages_it_is_in(folder):
    package = folder / "outer" / "inner"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "networks.py").write_text("from . import parts\nfrom ..top import x\n")
    (package / "parts.py").write_text("a = 1")
    (package.parent / "top.py").write_text("x = 1")
    digests = [source_digest("outer.inner.networks:make")]
    for changed in ("inner/parts.py", "top.py", "__init__.py"):
        (package.parent / changed).write_text("y = 2")
        digests.append(source_digest("outer.inner.networks:make"))
    assert len(set(digests)) == 4 and None not in digests
    assert source_digest("nowhere.at.all:make") is None
    assert "outer" not in sys.modules


def test_settings_that_the_user_gives_name_code_and_a_folders_do_not(folder, tmp_path):
    (folder / "own.yaml").write_text(ZOO)
    load(ZooConfig, "own.yaml")
    assert trust.handed_on() == {trust.ENVIRONMENT: EVIL}
    os.environ[trust.ENVIRONMENT] = ""
    record = folder / "zoos" / "theirs" / "run"
    record.mkdir(parents=True)
    (record / "config.yaml").write_text(ZOO)
    for words in (["--dry-run"], []):
        with pytest.raises(ConfigError, match=f"--trust-code {EVIL}"):
            COMMANDS["zoo"].run(["--resume", "--name", "theirs", *words])
        assert not Path("ran").exists()


def test_files_that_a_strangers_pipeline_names_are_not_named_by_the_user(folder):
    record = folder / "pipelines" / "theirs"
    record.mkdir(parents=True)
    (record / "zoo.yaml").write_text(ZOO)
    (record / "config.yaml").write_text("zoo: zoo.yaml")
    for words in (["--dry-run"], []):
        with pytest.raises(ConfigError, match=f"zoo.yaml: network.target.*--trust-code {EVIL}"):
            COMMANDS["pipeline"].run(["--resume", "--name", "theirs", *words])
    assert not Path("ran").exists()


def test_a_flag_names_code_and_several_are_given_one_by_one(folder):
    from dwf.settings import parse

    (folder / "own.yaml").write_text(ZOO)
    words = ["--config", "own.yaml", "--trust-code", "a:b", "--trust-code", "c:d"]
    parsed = parse(ZooConfig, "own.yaml", argv=[*words, "--network.target", "e:f"])
    assert parsed.launch.trust_code == ("a:b", "c:d")
    assert os.environ[trust.ENVIRONMENT].split() == ["a:b", "c:d", "e:f"]
    os.environ[trust.ENVIRONMENT] = ""
    record = folder / "zoos" / "own" / "run"
    record.mkdir(parents=True)
    (record / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(ZOO)))
    parse(
        ZooConfig,
        "own.yaml",
        argv=["--resume", "--name", "own", "--network.target", "e:f"],
        folder="zoos",
    )
    assert os.environ[trust.ENVIRONMENT].split() == ["e:f"]


def build_in(folder: Path, index: int) -> None:
    """A unit of work that builds a network of the user's own."""
    build_network(PythonConfig(EVIL))
    (folder / f"built-{index}").touch()


def built(folder: Path) -> set[int]:
    return {int(file.name.split("-")[1]) for file in folder.glob("built-*")}


def test_worker_processes_are_told_what_was_named(folder):
    work = Work(
        folder,
        count=1,
        unit=build_in,
        finished=built,
        progress=lambda folder: (0.0, ""),
        what="build",
        size=1,
        unit_name="networks",
    )
    trust.trust_code(EVIL)
    assert not local.run_units(work, [0], workers=1)
    assert built(folder) == {0}
