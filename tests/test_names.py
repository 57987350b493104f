"""Names on a command line: a path to a folder says its name, against names written out by hand."""

from pathlib import Path

import pytest

from dwf import settings
from dwf.errors import ConfigError, NotAZoo
from dwf.evaluation.config import EvaluateConfig
from dwf.exporters.config import ExportConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.measurements.folder import resumed_under
from dwf.names import folder_said, name_said
from dwf.zoo import care


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root beside another, in which the command is given from the folder above."""
    for folder in ("here/zoos/x", "here/zoos/deep/y", "other/zoos/x", "nets"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Path("here")


@pytest.mark.parametrize(
    "word, name",
    [
        ("x", "x"),
        ("x/", "x"),
        ("zoos/x", "x"),
        ("zoos/x/", "x"),
        ("./here/zoos/x", "x"),
        ("here/zoos/new", "new"),
        ("other/../here/zoos/x", "x"),
        ("deep/y", "deep/y"),
        ("zoos/deep/y", "deep/y"),
        ("not/there", "not/there"),
    ],
)
def test_a_path_to_a_folder_says_its_name(word, name, root):
    assert name_said(word, root / "zoos", key="--zoo") == name


def test_absolute_paths_and_links_say_names_too(root, tmp_path):
    assert name_said(str(tmp_path / "here/zoos/x"), root / "zoos", key="--zoo") == "x"
    (tmp_path / "link").symlink_to("here")
    assert name_said("link/zoos/x", root / "zoos", key="--zoo") == "x"
    assert name_said(str(tmp_path / "here/zoos/x"), Path("link/zoos"), key="--zoo") == "x"
    (root / "zoos" / "elsewhere").symlink_to(tmp_path / "other/zoos/x")
    assert name_said("here/zoos/elsewhere", root / "zoos", key="--zoo") == "elsewhere"


def test_a_folder_elsewhere_is_refused_in_one_sentence(root, tmp_path):
    for word in ("other/zoos/x", str(tmp_path / "other/zoos/x")):
        with pytest.raises(ConfigError, match=r"^--zoo .*x: the folder lies outside here/zoos: "):
            name_said(word, root / "zoos", key="--zoo")
        assert name_said(word, root / "zoos", key="--samples", may_be_path=True) == word


def parsed(cls: type, command: str, words: list[str], **how):
    """The settings that a command line comes to."""
    return settings.parse(cls, "default", argv=words, command=command, **how)


def test_every_flag_of_a_name_takes_a_path(root, tmp_path):
    at = ["--root", "here"]
    sample = parsed(SampleConfig, "sample", ["--generator", "runs/g", "--zoo", "here/zoos/x", *at])
    assert (sample.config.generator, sample.config.zoo) == ("g", "x")
    words = ["--zoo", "zoos/x/", "--samples", "zoos/s", "nets", str(tmp_path / "nets"), *at]
    report = parsed(EvaluateConfig, "evaluate", words, folder="reports", named="{zoo}")
    assert (report.config.zoo, report.name) == ("x", "x")
    assert report.config.samples == ("s", "nets", str(tmp_path / "nets"))
    words = ["--zoo=zoos/x", "--report=reports/r", "--name", "exports/e", *at]
    export = parsed(ExportConfig, "export", words, folder="exports")
    assert (export.config.zoo, export.config.report, export.name) == ("x", "r", "e")
    words = ["digits_flat", "--zoo", "zoos/x", "--more-zoos", "zoos/deep/y", "z", *at]
    fit = parsed(GeneratorConfig, "generator", words)
    assert fit.config.more_zoos == ("deep/y", "z")
    assert resumed_under(["--zoo", "zoos/x", "--name", "m", *at]) == "zoos/x/measured"


def test_a_flag_refuses_what_lies_elsewhere(root):
    words = ["--generator", "g", "--zoo", "other/zoos/x", "--root", "here"]
    with pytest.raises(ConfigError, match="--zoo other/zoos/x: the folder lies outside here/zoos"):
        parsed(SampleConfig, "sample", words)


def test_commands_of_folders_take_names(root, monkeypatch):
    monkeypatch.chdir(root)
    assert folder_said(Path("x"), "zoos") == Path("zoos/x")
    assert folder_said(Path("zoos/x"), "zoos") == Path("zoos/x")
    assert folder_said(Path("none"), "zoos") == Path("none")


@pytest.mark.parametrize("word", [".", "..", "zoos/..", "/"])
def test_folders_without_a_name_are_refused_in_one_sentence(root, monkeypatch, word):
    monkeypatch.chdir(root)
    for look in (care.info, lambda folder: care.verify((folder,))):
        with pytest.raises(NotAZoo, match=r"is not a zoo: it has no zoo\.json"):
            look(Path(word))


def test_a_zoo_is_looked_at_from_within(root, monkeypatch, make_zoo, capsys):
    zoo = make_zoo()
    monkeypatch.chdir(zoo.path)
    assert care.verify((Path(),)) == 0
    assert f"{zoo.path.resolve()}: 1 shards are whole" in capsys.readouterr().out
