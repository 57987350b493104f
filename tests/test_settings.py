"""Settings from files and flags: which one wins, and how each mistake is named."""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from dwf import settings
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.run_folder import RunFolder
from dwf.settings import Bounds, Count, Fraction, Positive, Whole
from dwf.shipped import CONFIGS
from dwf.zoo.config import ZooConfig


class Density:
    """What all kinds say of themselves, and settings that a kind may have."""

    mixes: ClassVar[bool] = True
    share: ClassVar[float] = 0.5


@dataclass(frozen=True)
class Flow(Density):
    width: Count = 8
    kind: Literal["flow"] = "flow"


@dataclass(frozen=True)
class Kde:
    bandwidth: Positive = 0.1
    kind: Literal["kde"] = "kde"


@dataclass(frozen=True)
class Range:
    low: Whole


@dataclass(frozen=True)
class Config:
    zoo: str
    density: Flow | Kde = field(default_factory=Flow)
    share: Fraction = 0.5
    rate: float = 0.1
    steps: Count | None = None
    widths: tuple[Count, ...] = (1, 2)
    mode: Literal["one", "two"] = "one"
    fast: bool = False
    layers: tuple[Count, ...] | Range | None = None


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def test_flags_beat_the_file_and_the_file_beats_defaults(tmp_path):
    file = write(tmp_path, "zoo: z\nrate: 3e-4\nshare: 0.2\n")
    parsed = settings.parse(Config, str(file), argv=["--share", "0.3"])
    assert parsed.config == Config(zoo="z", rate=3e-4, share=0.3)
    assert parsed.origins["rate"] == "file" and parsed.origins["share"] == "flag"
    assert "mode" not in parsed.origins
    assert parsed.name == "config"


def test_kind_chooses_the_part_and_its_flags(tmp_path):
    file = write(tmp_path, "zoo: z\ndensity: {kind: kde}\n")
    parsed = settings.parse(Config, str(file), argv=["--density.bandwidth", "0.7"])
    assert parsed.config.density == Kde(0.7)


@pytest.mark.parametrize("name", ["mixes", "share"])
def test_what_a_class_says_of_itself_is_no_setting(tmp_path, name):
    assert settings.to_dict(Flow()) == {"width": 8, "kind": "flow"}
    with pytest.raises(ConfigError, match=rf"density.{name}: no such setting in Flow"):
        settings.build(Config, {"zoo": "z", "density": {"kind": "flow", name: True}}, source="file")


def test_a_required_word_may_come_from_its_flag(tmp_path):
    parsed = settings.parse(Config, str(write(tmp_path, "")), argv=["--zoo", "mine"])
    assert parsed.config.zoo == "mine" and parsed.origins["zoo"] == "flag"


def test_plain_data_comes_back_as_the_same_settings():
    config = Config(zoo="z", density=Kde(0.3), steps=4, widths=(3,))
    assert settings.build(Config, settings.to_dict(config), source="memory") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "zoo: z\nshere: 1",
            r"config.yaml:2: shere: no such setting in Config; did you mean 'share'",
        ),
        ("zoo: z\nshare: 1.5", r"config.yaml:2: share = 1.5: allowed is at least 0, at most 1"),
        ("zoo: z\nwidths: [3, 0]", r"widths\[1\] = 0: allowed is at least 1"),
        ("zoo: z\nsteps: '3'", r"steps = '3': expected int, found str"),
        ("zoo: z\nsteps: true", r"steps = True: expected int, found bool"),
        ("zoo: z\nrate: fast", r"rate = 'fast': expected float, found str"),
        ("zoo: z\nmode: tow", r"mode = 'tow': allowed is one of one, two; did you mean 'two'"),
        ("zoo: z\ndensity: {kind: flows}", r"density.kind = 'flows': .*flow, kde; did you mean"),
        ("zoo: z\ndensity: {kind: flow, widht: 3}", r"density.widht: .*did you mean 'width'"),
        ("zoo: z\nwidths: 3", r"widths = 3: expected a list"),
        ("share: 0.1", r"zoo is missing; set it there or by --zoo"),
        ("[1, 2]", r"expected settings as `key: value`"),
        ("zoo: [", r"config.yaml: not YAML"),
        ("zoo: z\nzoo: y", r"config.yaml:2: zoo twice"),
        ("zoo: z\nlayers: {low: -1}", r"layers.low = -1: allowed is at least 0"),
        ("zoo: z\nlayers: [0]", r"layers\[0\] = 0: allowed is at least 1"),
    ],
)
def test_a_wrong_file_says_where_and_what_is_allowed(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        settings.load(Config, write(tmp_path, text))


def test_what_a_preset_leaves_out_is_given_by_a_flag():
    with pytest.raises(ConfigError, match=r"default.yaml: zoo is missing; give --zoo$"):
        settings.load(EvaluateConfig, CONFIGS / "evaluate" / "default.yaml")


def test_flags_are_held_to_the_same_ranges(tmp_path):
    with pytest.raises(ConfigError, match=r"share = 2.0: allowed is at least 0, at most 1"):
        settings.parse(Config, str(write(tmp_path, "zoo: z")), argv=["--share", "2"])


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, "zoo: z")
    with pytest.raises(ConfigError, match=r"confg.yaml: no such file; did you mean .*config.yaml"):
        settings.load(Config, tmp_path / "confg.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config.yaml is no text in UTF-8"):
        settings.load(Config, file)


def test_a_union_without_kinds_takes_a_list_or_settings(tmp_path):
    config = settings.load(Config, write(tmp_path, "zoo: z\nlayers: [3]"))
    assert config.layers == (3,)
    parsed = settings.parse(Config, str(write(tmp_path, "zoo: z\nlayers: {low: 3}")), argv=[])
    assert parsed.config.layers == Range(3)


def test_the_shipped_settings_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = settings.parse(ZooConfig, "configs/zoo/mnist_mlp.yaml", argv=[])
    assert parsed.config.count == 128 and parsed.name == "mnist_mlp"


def write_files(folder: Path, **texts: str) -> Path:
    """Write NAME.yaml files; return the last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def test_a_file_is_laid_over_the_one_it_extends_and_the_origin_of_each_value_is_told(tmp_path):
    write_files(tmp_path / "base", first="zoo: z\nshare: 0.2\nwidths: [3, 4, 5]\n")
    base = write_files(tmp_path / "base", second="extends: first.yaml\nrate: 0.5\nshare: 0.3\n")
    file = write_files(
        tmp_path / "own", own="extends: ../base/second.yaml\nwidths: [7]\nsteps: 9\n"
    )
    parsed = settings.parse(Config, str(file), argv=["--steps", "8"])
    assert parsed.config == Config(zoo="z", share=0.3, rate=0.5, widths=(7,), steps=8)
    assert parsed.name == "own" and settings.load(Config, file).steps == 9
    assert parsed.origins == {
        "zoo": str(base.with_name("first.yaml")),
        "share": str(base),
        "rate": str(base),
        "widths": "file",
        "steps": "flag",
    }
    told = [line.split() for line in parsed.describe().splitlines()]
    assert ["rate", "0.5", f"({base})"] in told and ["widths", "[7]", "(file)"] in told


@dataclass(frozen=True)
class Nested:
    config: Config
    fast: bool = False


def test_parts_are_merged_however_deep_but_another_kind_takes_nothing_over(tmp_path):
    base = "config: {zoo: z, rate: 0.7, density: {kind: flow, width: 3}}\nfast: true\n"
    write_files(tmp_path, base=base)
    same = write_files(tmp_path, same="extends: base.yaml\nconfig: {density: {width: 5}}\n")
    assert settings.load(Nested, same) == Nested(Config("z", Flow(5), rate=0.7), True)
    again = "extends: base.yaml\nconfig: {density: {kind: flow}, rate: 0.1}\n"
    again = write_files(tmp_path, again=again)
    assert settings.load(Nested, again).config == Config("z", Flow(3))
    other = write_files(tmp_path, other="extends: same.yaml\nconfig: {density: {kind: kde}}\n")
    assert settings.read_yaml(other)["config"]["density"] == {"kind": "kde"}
    assert settings.load(Nested, other) == Nested(Config("z", Kde(), rate=0.7), True)
    back = write_files(tmp_path, back="extends: other.yaml\nconfig: {density: {kind: flow}}\n")
    assert settings.load(Nested, back).config.density == Flow()  # the default, not base's


def test_files_that_extend_each_other_are_refused_with_their_names(tmp_path):
    one = write_files(tmp_path, two="extends: one.yaml\nzoo: z\n", one="extends: two.yaml\n")
    two = tmp_path / "two.yaml"
    with pytest.raises(ConfigError, match=rf"extend each other: {one} -> {two} -> {one}: remove"):
        settings.load(Config, one)
    own = write_files(tmp_path, own="extends: own.yaml\n")
    with pytest.raises(ConfigError, match=rf"extend each other: {own} -> {own}"):
        settings.load(Config, own)


@pytest.mark.parametrize(
    ("base", "own", "wrong", "message"),  # the first line of own is `extends`
    [
        ("zoo: z\nshere: 1", "rate: 1", "base:2", r"shere: no such setting .* mean 'share'"),
        ("zoo: z", "shere: 1", "own:2", r"shere: no such setting .* mean 'share'"),
        ("zoo: z\nshare: 2", "rate: 1", "base:2", r"share = 2: allowed is at least 0, at most 1"),
        ("zoo: z\nshare: 2", "share: 3", "own:2", r"share = 3: allowed is at least 0, at most 1"),
        ("zoo: z\nwidths: [1, 0]", "rate: 1", "base:2", r"widths\[1\] = 0: allowed is at least 1"),
        (
            "zoo: z\ndensity: {kind: flow, widht: {a: 1}}",
            "density: {width: 3}",
            "base:2",
            r"density.widht: no such setting in Flow; did you mean 'width'",
        ),
        ("zoo: z\ndensity: {kind: flows}", "rate: 1", "base:2", r"density.kind = 'flows'"),
        (
            "zoo: z\ndensity: {width: 3}",
            "rate: 1",
            "base:2",
            r"density.kind = None: allowed is one",
        ),
        ("rate: 1", "share: 0.5", "own", r"zoo is missing; set it there or by --zoo"),
        ("zoo: [", "rate: 1", "base", r"not YAML"),
        (
            "zoo: z",
            "extends: [a, b]",
            "own",
            r"extends = \['a', 'b'\]: expected the name of one file",
        ),
    ],
)
def test_an_error_names_the_file_that_holds_the_value(tmp_path, base, own, wrong, message):
    own = own if own.startswith("extends") else f"extends: base.yaml\n{own}"
    file = write_files(tmp_path, base=base, own=own)
    name, colon, line = wrong.partition(":")
    with pytest.raises(ConfigError, match=rf"^{tmp_path / name}.yaml{colon}{line}: {message}"):
        settings.load(Config, file)


def test_a_missing_base_is_named_with_who_extends_it(tmp_path):
    file = write_files(tmp_path, base="zoo: z", own="extends: bsae.yaml\n")
    told = rf"bsae.yaml, which {file} extends: no such file; did you mean '{tmp_path}/base.yaml'"
    with pytest.raises(ConfigError, match=told):
        settings.load(Config, file)


def test_a_run_folder_keeps_the_merged_settings_alone(tmp_path):
    file = write_files(tmp_path, base="zoo: z\nrate: 0.5", own="extends: base.yaml\nsteps: 9\n")
    parsed = settings.parse(Config, str(file), argv=[])
    RunFolder(tmp_path / "runs" / "own", parsed.config)
    for name in ("base", "own"):
        (tmp_path / f"{name}.yaml").unlink()
    words = ["--resume", "--name", "own", "--root", str(tmp_path)]
    again = settings.parse(Config, str(file), argv=words)
    assert again.config == parsed.config and set(again.origins.values()) == {"file"}
    assert "extends" not in (tmp_path / "runs" / "own" / "config.yaml").read_text()


def test_a_run_may_be_called_after_its_settings(tmp_path):
    file = str(write(tmp_path, "zoo: z"))
    assert settings.parse(Config, file, argv=[], named="{zoo}-{mode}").name == "z-one"
    assert (
        settings.parse(Config, file, argv=["--name", "mine"], named="{zoo}-{mode}").name == "mine"
    )


def test_bounds_say_what_they_allow():
    assert float("inf") not in Bounds(0) and float("nan") not in Bounds(0)
    assert 0.0 not in Bounds(0, open=True) and 1e-9 in Bounds(0, open=True)
    assert str(Bounds(0, 1)) == "at least 0, at most 1"
    assert str(Bounds(0, open=True)) == "above 0"


@pytest.mark.parametrize("script", sorted(Path("launch").glob("*.py")), ids=lambda path: path.stem)
def test_help_answers_without_torch(script):
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", str(script), "--help"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "--config" in ran.stdout
    assert " torch\n" not in ran.stderr, "--help imports torch"
    assert time.monotonic() - start < 10  # 2 s is the target; this machine may be busy
