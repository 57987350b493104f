"""Command lines: every setting is a flag, files are found by name, faults are told at once.

What a command line must come to is written out by hand, as settings.
"""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest

from dwf import settings
from dwf.errors import ConfigError
from dwf.pipeline import PipelineConfig, commands
from dwf.settings import Count, Launch, Preset, Repeated
from dwf.settings.building import Origins
from dwf.settings.help import help_text
from dwf.settings.overlay import Overlay
from dwf.shipped import CONFIGS
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.space import read_bases
from dwf.zoo.config import KeepBest, PruneConfig, RangeConfig, ZooConfig
from dwf.zoo.family_config import FamilyConfig


@dataclass(frozen=True)
class Inner:
    """A part that has a part."""

    depth: Count = 3
    """Depth of it."""


@dataclass(frozen=True)
class One:
    """The first kind."""

    width: Count = 8
    """Width of it."""
    inner: Inner | None = None
    """What is in it."""
    fast: bool = True
    """Whether it hurries."""
    kind: Literal["one", "uno"] = "one"


@dataclass(frozen=True)
class Two:
    """The second kind."""

    widths: tuple[Count, ...] = (1,)
    """Widths of it."""
    kind: Literal["two"] = "two"


@dataclass(frozen=True)
class Config:
    """Settings of the tests."""

    part: One | Two = field(default_factory=lambda: One(width=5))
    """The part."""
    other: One | Two | None = None
    """Another part."""
    many: dict[str, One | Two] = field(default_factory=dict)
    """Parts by name."""
    steps: Count | None = 7
    """Steps of it."""
    words: Annotated[tuple[str, ...], Repeated()] = ()
    """Words of it."""
    rates: tuple[float, ...] = ()
    """Rates of it."""
    file: Annotated[str, Preset("zoo")] | None = None
    """File of it."""
    place: str = ""
    """Place of it."""


def parse(tmp_path: Path, *words: str, text: str = "{}") -> Config:
    (tmp_path / "own.yaml").write_text(text)
    return settings.parse(Config, str(tmp_path / "own.yaml"), argv=list(words)).config


TWO = "part: {kind: two, widths: [4, 5]}"
ONE = "part: {kind: one, width: 6, inner: {depth: 9}}"


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("{}", "--part.fast false", Config(One(width=5, fast=False))),  # the rest as by default
        ("{}", "--part.no-fast", Config(One(width=5, fast=False))),
        ("{}", "--part.inner.depth 4", Config(One(width=5, inner=Inner(4)))),
        ("{}", "--part.inner {}", Config(One(width=5, inner=Inner()))),
        (ONE, "--part.inner none", Config(One(width=6))),
        (ONE, "--part.kind uno", Config(One(width=6, inner=Inner(9), kind="uno"))),
        (ONE, "--part.kind two", Config(Two())),
        (ONE, "--part.widths 2 3 --part.kind two", Config(Two((2, 3)))),
        (TWO, "--part.kind one", Config(One())),  # another class begins anew
        (TWO, "--part.widths=[6,7]", Config(Two((6, 7)))),
        (TWO, "--part.widths 6", Config(Two((6,)))),
        (TWO, "--part.widths", "part.widths"),
        ("{}", "--other.kind one --other.width 2", Config(One(width=5), other=One(2))),
        ("{}", "--many.a.kind two --many.b-c.kind one", {"a": Two(), "b-c": One()}),
        ("many: {a.b: {kind: one}}", "--many.a.b.width 3", {"a.b": One(width=3)}),
        ("{}", "--steps none --rates 1e-3 -2", Config(One(width=5), steps=None, rates=(1e-3, -2))),
        ("{}", "--words a --words b c", Config(One(width=5), words=("a", "b", "c"))),
        ("{}", "--steps 3 --steps 4", Config(One(width=5), steps=4)),
    ],
)
def test_every_setting_is_a_flag_whatever_the_file_holds(tmp_path, text, words, expected):
    if words == "--part.widths":
        expected = Config(Two(()))
    parsed = parse(tmp_path, *words.split(), text=text)
    assert (parsed.many if isinstance(expected, dict) else parsed) == expected


def of_zoo(*words: str, preset: str = "mnist_mlp") -> ZooConfig:
    return settings.parse(ZooConfig, preset, argv=list(words), command="zoo").config


def test_values_and_ranges_and_other_kinds_of_a_shipped_zoo():
    assert of_zoo("--vary.learning-rate", "1e-4", "1e-2").vary.learning_rate == (1e-4, 1e-2)
    ends = ("--vary.weight-decay.low", "1e-4", "--vary.weight-decay.high", "1e-2")
    found = of_zoo(*ends, preset="seed_only_mnist14")
    assert found.vary.weight_decay == RangeConfig(1e-4, 1e-2)
    found = of_zoo("--network.kind", "cnn", "--network.channels", "4", "8", "--count", "3")
    assert found.network.kind == "cnn" and found.network.channels == (4, 8)
    assert found.count == 3 and found.data == of_zoo().data
    assert of_zoo("--recipe.prune.share", "0.3").recipe.prune == PruneConfig(0.3)
    assert of_zoo("--keep.kind", "best", "--keep.patience", "2").keep == KeepBest(2)
    with pytest.raises(ConfigError, match=r"vary.weight_decay.high is missing; .*-decay.high"):
        of_zoo(*ends[:2])
    same = of_zoo("--data.kind", "fashion_mnist").data  # of one class: the others are kept
    assert (same.kind, same.validation) == ("fashion_mnist", of_zoo().data.validation)


def test_members_of_a_family_have_flags_of_their_own():
    words = ["--shared.keep-epochs", "5", "--zoos.relu.network.widths", "64", "8", "10"]
    parsed = settings.parse(FamilyConfig, "varied_digits", argv=words, command="zoo")
    members = parsed.config.members
    assert {zoo.keep_epochs for zoo in members.values()} == {(5,)}
    assert [zoo.network.widths for zoo in members.values()] == [(64, 8, 10), (64, 16, 10)]
    assert parsed.origins["zoos.relu.network.widths"] == "flag"


def test_all_faults_are_told_at_once_with_their_lines(tmp_path):
    text = (
        "steps: 0\npart:\n  kind: one\n  widht: 3\n  inner:\n    depth: x\nrates:\n  - 1\n  - no\n"
    )
    with pytest.raises(ConfigError) as told:
        parse(tmp_path, "--stepz", "3", "--place", "--words", "a", text=text)
    own = tmp_path / "own.yaml"
    faults = str(told.value).splitlines()
    assert [fault.split(": ")[0] for fault in faults] == [
        *("--stepz", "--place"),
        *(f"{own}:{line}" for line in (1, 4, 6, 9)),
    ]
    assert "did you mean '--steps'" in faults[0] and "expected a value" in faults[1]
    assert "part.widht: no such setting" in faults[3] and "rates[1] = False" in faults[5]


def test_keys_given_twice_are_all_told(tmp_path):
    (tmp_path / "own.yaml").write_text("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    with pytest.raises(ConfigError) as told:
        settings.read_yaml(tmp_path / "own.yaml")
    own = tmp_path / "own.yaml"
    assert str(told.value).splitlines() == [f"{own}:3: a twice", f"{own}:2: b.c twice"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part.widths", "3"], r"--part.widths: no such setting in the kind that is chosen"),
        (["--part.width", "3", "4"], r"4: no such file"),
        (["--part.no-fast", "--part.no-fast=false"], r"no-fast takes no value"),
        (["--steps", "many"], r"^command line: steps = 'many': expected int"),
        (["a.yaml", "--config", "b.yaml"], r"a.yaml b.yaml: expected one settings file"),
        (["--name", "../x"], r"--name '\.\./x', under --root \.: it leads out of its folder"),
        (["--name", "/x"], r"--name '/x', under --root \.: it leads out of its folder"),
    ],
)
def test_a_wrong_flag_is_told_as_it_was_typed(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        parse(tmp_path, *words, text=ONE)


@pytest.mark.parametrize(
    "words",
    [
        ["FILE"],
        ["--dry-run", "FILE"],
        ["--seed", "3", "FILE", "--count", "5"],
        ["--config", "FILE"],
        ["--config=FILE"],
        ["--keep-epochs", "1", "--config", "FILE"],
    ],
)
def test_a_bare_word_is_taken_for_the_settings_file(tmp_path, words):
    file = tmp_path / "mine.yaml"
    file.write_text((CONFIGS / "zoo" / "iris_mlp.yaml").read_text())
    words = [word.replace("FILE", str(file)) for word in words]
    assert settings.parse(ZooConfig, "mnist_mlp", argv=words, command="zoo").name == "mine"


def test_presets_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("iris_mlp", "configs/zoo/iris_mlp.yaml"):
        parsed = settings.parse(ZooConfig, "mnist_mlp", argv=[word], command="zoo")
        assert parsed.config.count == 130 and parsed.name == "iris_mlp"
    with pytest.raises(ConfigError, match=r"a preset of dwf zoo; did you mean iris_mlp, "):
        settings.parse(ZooConfig, "mnist_mlp", argv=["iris_mpl"], command="zoo")
    (tmp_path / "iris_mlp").write_text((CONFIGS / "zoo" / "wine_mlp.yaml").read_text())
    parsed = settings.parse(ZooConfig, "mnist_mlp", argv=["iris_mlp"], command="zoo")
    assert parsed.config.data.kind == "table"  # a file of the user's own comes first


def test_files_that_a_file_names_are_relative_to_it_or_presets(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "mine.yaml").write_text("extends: ../base.yaml")
    (tmp_path / "base.yaml").write_text((CONFIGS / "zoo" / "iris_mlp.yaml").read_text())
    way = tmp_path / "a" / "b" / "way.yaml"
    way.write_text(f"zoo: ../mine.yaml\nalign: {CONFIGS}/align/balanced.yaml\nevaluate: default\n")
    monkeypatch.chdir("/")
    parsed = settings.parse(PipelineConfig, str(way), argv=[], folder="pipelines").config
    assert parsed.zoo == str(tmp_path / "a" / "mine.yaml")
    assert (parsed.align, parsed.evaluate) == ("balanced", "default")
    record = tmp_path / "root" / "pipelines" / "way"
    record.mkdir(parents=True)
    (record / "config.yaml").write_text(f"zoo: {parsed.zoo}\nalign: balanced\nevaluate: default\n")
    words = ["--resume", "--name", "way", "--root", str(tmp_path / "root")]
    again = settings.parse(PipelineConfig, "mnist_mlp", argv=words, folder="pipelines").config
    assert again == parsed
    way.write_text("zoo: mine.yaml\nevaluate: defaults\n")
    with pytest.raises(ConfigError) as told:
        settings.parse(PipelineConfig, str(way), argv=[], folder="pipelines")
    first, second = str(told.value).splitlines()
    assert first.startswith(f"{way}:1: zoo = 'mine.yaml'") and "no such file" in first
    assert second.startswith(f"{way}:2: evaluate = 'defaults'") and "mean default" in second


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = "place: ~/there\nfile: ~/zoo.yaml\n"
    (tmp_path / "zoo.yaml").write_text("{}")
    found = parse(tmp_path, text=file)
    assert found.place == f"{tmp_path}/there" and found.file == f"{tmp_path}/zoo.yaml"
    assert parse(tmp_path, "--place=~/else").place == f"{tmp_path}/else"
    parsed = settings.parse(Config, "", argv=["~/own.yaml", "--root=~/root", "--place", "~"])
    assert parsed.launch.root == tmp_path / "root" and parsed.config.place == "~"


def words_of(*texts: str) -> dict[str, list[str]]:
    """Words that a pipeline of two generators adds to each command, by its name."""
    files = ("digits_neurons", "gaussian_digits")
    config = PipelineConfig("digits_4096", generators=files, sample="many", set=texts)
    return {one.name: list(one.given) for one in commands(config, "way") if one.given}


def test_a_pipeline_sets_settings_of_the_stages_that_have_them():
    assert words_of("generator.density.training.steps=9", "zoo.count=20") == {
        "way": ["--count=20"],
        "way-digits_neurons": ["--density.training.steps=9"],  # a Gaussian is not trained
    }
    assert words_of("generator.seed=3", "generator[gaussian_digits].seed=4") == {
        "way-digits_neurons": ["--seed=3"],
        "way-gaussian_digits": ["--seed=3", "--seed=4"],
    }
    kinds = ("generator[digits_neurons].density.kind=kde", "generator.density.bandwidth=0.3")
    assert words_of(*kinds) == {
        "way-digits_neurons": ["--density.kind=kde", "--density.bandwidth=0.3"]
    }
    assert [*words_of("sample.count=5")] == [
        *("way-digits_neurons-samples", "way-gaussian_digits-samples")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("generator.density.train.steps=9", r"train.steps: no such .*'density.training.steps'"),
        ("generator[digits].seed=9", r"no generator of that name: there are digits_neurons, "),
        ("generators.seed=9", r"no such stage: there are .*did you mean 'generator'"),
        ("evaluate.seed=9", r"no such stage"),
        ("generator.zoo=9", r"zoo links the stages"),
        ("count", r"expected STAGE.SETTING=VALUE"),
    ],
)
def test_a_setting_that_no_stage_has_is_refused(text, said):
    with pytest.raises(ConfigError, match=said) as told:
        words_of(text)
    assert str(told.value).startswith(f"--set {text}: ")


def test_a_sweep_sets_settings_of_its_stages():
    words = ["--set", "generator.density.training.steps=9", "--set", "zoo.network.widths=[4,5,3]"]
    parsed = settings.parse(SweepConfig, "iris_optuna_asha", argv=words, command="sweep")
    assert parsed.config.set == (words[1], words[3])
    bases = read_bases(parsed.config)
    assert bases["generator"]["deepweightflow_iris"]["density"]["training"]["steps"] == 9
    assert bases["zoo"]["iris_mlp"]["network"]["widths"] == [4, 5, 3]
    wrong = replace(parsed.config, set=("sample.cuont=3",))
    with pytest.raises(ConfigError, match=r"--set sample.cuont=3: cuont: no such setting"):
        read_bases(wrong)


def test_what_differs_from_the_defaults_is_described_first(tmp_path):
    (tmp_path / "own.yaml").write_text("part: {width: 5, kind: one, fast: false}\nsteps: 7\n")
    words = [str(tmp_path / "own.yaml"), "--rates", "1"]
    told = settings.parse(Config, "", argv=words).describe().splitlines()
    assert [line.split()[0] for line in told] == ["part.fast", "rates", "10"]
    assert "more settings have their defaults; --all shows them" in told[-1]
    told = settings.parse(Config, "", argv=[*words, "--all"]).describe().splitlines()
    assert [line.split()[0] for line in told[:3]] == ["part.fast", "rates", "part.width"]
    assert len(told) == 2 + 10 and told[2].endswith("5  (file)")


def helped(*words: str) -> str:
    """What a command's help says, each run of spaces as one."""
    command = [sys.executable, "-m", "dwf", *words, "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert max(map(len, ran.stdout.splitlines())) <= 100 or "{" in ran.stdout
    return ran.stdout


def test_help_says_what_the_command_does_then_its_flags_in_groups_and_its_presets():
    lines = helped("zoo", "--network.kind", "cnn").splitlines()
    assert lines[0] == "usage: dwf zoo [FILE] [--flag value ...]"
    assert lines[2].startswith("Train a zoo of networks")
    assert any(line.startswith("  dwf zoo ") for line in lines[:10])
    heads = [line for line in lines[10:] if line and not line.startswith(" ")]
    assert heads[-5:] == ["common", "training", "cluster", "expert", "presets"]
    place = {line.split()[0]: i for i, line in enumerate(lines) if line.lstrip().startswith("--")}
    at = {head: lines.index(head) for head in heads[-5:]}
    assert at["common"] < place["--dry-run,"] < place["--count"] < at["training"]
    assert at["training"] < place["--network.channels"] < place["--vary.dropout"] < at["cluster"]
    assert at["cluster"] < place["--nodes"] < at["expert"] < place["--compute.device"]
    assert "--network.widths" not in place and "mnist_mlp," in " ".join(lines[at["presets"] :])
    (kinds,) = [line for line in lines if "--network.kind" in line]
    assert "mlp,cnn,resnet" in kinds


def test_help_wraps_sentences_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    overlay, line = Overlay(ZooConfig, {}), Overlay(Launch, {"config": "x"})
    known = Origins()
    text = help_text(overlay, line, origins=known, command="zoo", about="It does.", file="x")
    prose = [part for part in text.splitlines() if not part.lstrip().startswith("--")]
    assert max(map(len, prose)) <= 60
    full = [part for part in prose if len(part) > 45]
    assert len(full) > 30, "lines are broken only where the terminal ends"


def test_a_reader_that_leaves_ends_a_command_in_silence():
    """The shell's own way: `head` closes the pipe before all is written."""
    line = f"set -o pipefail; {sys.executable} -m dwf zoo --help | head -1"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert ran.stdout.startswith("usage: dwf zoo") and ran.stderr == ""
    assert ran.returncode in (0, 141)  # 0: all was written before `head` left
