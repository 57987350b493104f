"""Names lead nowhere and steer nothing: each is refused, or shown as it stands.

What a terminal, a page of HTML and a page of Markdown must not get is looked for in what they got.
"""

import json
import logging
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
import yaml
from matplotlib.figure import Figure

from dwf import screen
from dwf.align.config import AlignConfig
from dwf.commands import COMMANDS
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, DwfError, NotAZoo, exit_cleanly
from dwf.evaluation.config import EvaluateConfig, ReconstructionConfig
from dwf.evaluation.lineage import commands_of
from dwf.evaluation.report.drawing import STYLE, save_figures
from dwf.evaluation.report.report import markdown_table
from dwf.evaluation.stage import evaluate
from dwf.exporters.config import ExportConfig
from dwf.flags import making_again, words_naming
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.measurements.config import MeasureConfig
from dwf.measurements.folder import folder_of, places, root_of
from dwf.metrics import log_to_stderr, print_report, print_table
from dwf.names import folder_in, why_no_name, why_no_part
from dwf.plain import for_markdown, visible
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.settings import Launch, build
from dwf.transfer.config import FinetuneConfig
from dwf.zoo.facts import Facts
from dwf.zoo.manifest import grown_by, note_grown, read_manifest, write_manifest
from dwf.zoo.provenance import read_provenance

BAD = {
    "empty": "",
    "here": ".",
    "above": "..",
    "out": "../../evil",
    "through": "a/../../b",
    "absolute": "/etc",
    "home": "~/x",
    "of another": "~root",
    "doubled": "a//b",
    "closing": "a/",
    "escape": "a\x1b[2Jb",
    "line": "a\nb",
    "zero": "a\0b",
    "bell": "a\x07",
    "turned": "a\u202egnp.exe",
    "c1": "a\x9b31m",
    "half": "a\ud800",
    "long": "a" * 300,
}
GOOD = [
    "digits_1024",
    "a/b",
    "a b",
    "a$x^2$",
    "<b>",
    "[bold]x",
    "naïve",
    "数字",
    "..a",
    "a..b",
    "-a",
]


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_names_that_lead_elsewhere_or_steer_screens_are_none(name, tmp_path):
    assert why_no_name(name) and why_no_part(name)
    with pytest.raises(ConfigError) as refused:
        folder_in(tmp_path / "zoos", name)
    assert "\x1b" not in str(refused.value) and "--root" in str(refused.value)
    with pytest.raises(ValueError, match="--name"):
        Launch(Path("x.yaml"), name=name)


@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_names(name, tmp_path):
    assert why_no_name(name) is None
    assert folder_in(tmp_path, name) == tmp_path / name
    assert Launch(Path("x.yaml"), name=name).name == name


def test_a_home_of_nobody_is_a_name_of_no_folder(tmp_path, capsys):
    commands = (
        ["sample", "--generator", "~nobody-here"],
        ["sample", "--generator", "g", "--name", "~nobody-here"],
        ["compare", "~nobody-here", "b", "--root", "~nobody-there"],
        ["zoo", "--config", "~nobody-here"],
        ["pipeline", "--root", "~nobody-here", "--config", "~nobody-there"],
    )
    for command, *words in commands:
        with pytest.raises(DwfError, match="nobody-"):
            COMMANDS[command].run(words, command)


def test_words_that_mean_nothing_are_refused_by_each_command(make_zoo, tmp_path):
    zoo = str(make_zoo(widths=(64, 4, 10)).path)
    commands = (
        ["merge", str(tmp_path / "zoos" / "a\x1b[31m"), zoo, zoo],
        ["index", str(tmp_path / "none")],
        ["statistics", zoo, "--epoch", "9" * 5000],
        ["verify", zoo, "--threads", "-3"],
        ["symmetry", zoo, "--shape", "99999999999"],
        ["symmetry", zoo, "--shape", "-1"],
    )
    for command, *words in commands:
        with pytest.raises(DwfError, match=r"allowed|expected|no screen|no such folder|--shape"):
            COMMANDS[command].run(words, command)
    assert [file.name for file in tmp_path.iterdir()] == ["zoos"]
    assert [file.name for file in (tmp_path / "zoos").iterdir()] == ["small"]


def test_a_name_beside_another_is_no_path():
    assert why_no_part("a/b") and why_no_part("..") and why_no_part("a") is None
    assert why_no_part(3) and why_no_name(None)


NAMED = [
    (AlignConfig, "zoo"),
    (AlignConfig, "reference_zoo"),
    (EvaluateConfig, "zoo"),
    (ReconstructionConfig, "zoo"),
    (ExportConfig, "zoo"),
    (ExportConfig, "report"),
    (GeneratorConfig, "zoo"),
    (GeneratorConfig, "more_zoos"),
    (GeneratorConfig, "codec_zoos"),
    (SampleConfig, "generator"),
    (SampleConfig, "zoo"),
    (MeasureConfig, "zoo"),
    (ExperimentConfig, "zoos"),
    (FinetuneConfig, "zoo"),
    (FinetuneConfig, "samples"),
]


@pytest.mark.parametrize("cls, key", NAMED, ids=[f"{cls.__name__}-{key}" for cls, key in NAMED])
def test_settings_that_name_a_folder_are_held_to_the_rule(cls, key):
    for name in BAD.values():
        value = [name] if key in ("more_zoos", "codec_zoos", "zoos", "samples") else name
        with pytest.raises(ConfigError) as refused:
            build(cls, {key: value}, source="stranger.yaml")
        lines = [
            line for line in str(refused.value).split("\n") if f"{key}" in line and "=" in line
        ]
        assert lines and all("give the name of a folder" in line for line in lines[:1])
        assert "\x1b" not in str(refused.value)


SAMPLED = {"generator": "g", "digest": "0", "zoo": "z", "zoo_fingerprint": "1", "seed": 0}
SAMPLED |= {"solver": None, "steps": None, "evaluations_per_sample": 1.0, "learnt_from": ["z"]}
ALIGNED = {"aligned_from": "z", "fingerprint": "0", "method": "weights", "scale": "none"}
ALIGNED |= {"reference": "network", "reference_network": 0, "seed": 0, "reference_zoo": "y"}


@pytest.mark.parametrize("told", [SAMPLED, ALIGNED], ids=["sampled", "aligned"])
def test_where_networks_come_from_leads_nowhere(told):
    read_provenance(told, "zoo.json")
    for key in {"generator", "zoo", "learnt_from", "aligned_from", "reference_zoo"} & told.keys():
        for name in BAD.values():
            bad = told | {key: [name] if key == "learnt_from" else name}
            with pytest.raises(DwfError, match=rf"zoo\.json: .*{key}"):
                read_provenance(bad, "zoo.json")
            with pytest.raises(DwfError, match=rf"before\.{key}"):
                read_provenance(ALIGNED | {"before": bad}, "zoo.json")


def test_zoos_beside_a_zoo_are_no_paths(make_zoo, tmp_path):
    zoo = make_zoo(widths=(64, 4, 10))
    for name in (*BAD.values(), "a/b"):
        note_grown(zoo.path, [name])
        with pytest.raises(NotAZoo):
            grown_by(zoo.path)
        with pytest.raises(ConfigError):
            write_manifest(tmp_path / "zoos" / "family", {name: "x"})
        told = {"format": "dwf-zoos", "version": 1, "zoos": {"a": name}}
        (tmp_path / "zoos" / "family").mkdir(exist_ok=True)
        (tmp_path / "zoos" / "family" / "zoo.json").write_text(json.dumps(told))
        with pytest.raises(NotAZoo):
            read_manifest(tmp_path / "zoos" / "family")
        (tmp_path / "zoos" / "family" / "zoo.json").unlink()


def test_a_zoo_that_says_it_was_made_of_itself_has_commands_all_the_same(make_zoo, tmp_path):
    zoo = make_zoo(widths=(64, 4, 10), name="z")
    told = json.loads((zoo.path / "zoo.json").read_text())
    told["provenance"] = ALIGNED | {"aligned_from": "z"}
    (zoo.path / "zoo.json").write_text(json.dumps(told))
    assert Facts.read(zoo.path).aligned
    (zoo.path / "run").mkdir()
    (zoo.path / "run" / "config.yaml").write_text("{}")
    (tmp_path / "reports" / "r").mkdir(parents=True)
    text = yaml.safe_dump({"zoo": "z"})
    (tmp_path / "reports" / "r" / "config.yaml").write_text(text)
    found = commands_of(tmp_path, zoo="z", samples=(), name="r")
    assert len([line for line in found if line.startswith("dwf align")]) == 1


@pytest.mark.parametrize("name", ["../../x", "/x", ".", "a\x1b[31m"])
def test_a_command_refuses_such_a_name_before_it_writes(name, tmp_path, capsys):
    root = tmp_path / "deep" / "er"
    root.mkdir(parents=True)
    for words in (["--name", name], ["--resume", "--name", name]):
        with pytest.raises(SystemExit) as exited:
            exit_cleanly(
                lambda words=words: COMMANDS["zoo"].run(["iris_mlp", *words, "--root", str(root)])
            )
        assert exited.value.code == 2
        said = capsys.readouterr().err
        assert "--name" in said and "\x1b" not in said
    assert list(tmp_path.rglob("*")) == [root.parent, root]


# --- screens -------------------------------------------------------------------------------------

LINK = "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\"
EVIL = f"x{LINK}\x1b[2J\r\x07\x9b1m[link=http://evil]y[/link][red]z"


def is_clean(said):
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", re.sub(r"\x1b\[[0-9;]*m", "", said))


def test_what_is_printed_logged_or_raised_steers_no_terminal(capsys, tmp_path):
    with screen.kept():
        print(EVIL)
        print_table(["name", EVIL], [[EVIL, "1"]])
        print_report(
            EVIL, ["name", EVIL], rows=[[EVIL, "1"]], bold=[True], paragraphs=[EVIL], width=300
        )
        with screen.kept_in(tmp_path):
            print(EVIL)
    said = capsys.readouterr().out
    assert is_clean(said) and r"\x1b]8;;http://evil" in said
    assert said.count("[red]z") >= 7  # rich took it for no markup
    assert is_clean((tmp_path / screen.FILE).read_text())

    def fail():
        raise DwfError(EVIL)

    with pytest.raises(SystemExit):
        exit_cleanly(fail)
    assert is_clean(capsys.readouterr().err)


def test_log_lines_steer_no_terminal(capsys, monkeypatch):
    root, logger = logging.getLogger(), logging.getLogger("dwf")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    log_to_stderr()
    logger.warning("zoo %s is odd", EVIL)
    said = capsys.readouterr().err
    assert "is odd" in said and is_clean(said) and "\x1b" not in said


def test_text_that_is_shown_stays_as_it_is():
    for text in ("plain", "naïve 数字 ± é", "two\nlines\tand a tab", "a [link] $x$ <b>"):
        assert visible(text) == text


# --- pages and figures ---------------------------------------------------------------------------

TITLE = "<img src=x onerror=alert(1)><script>|[a](http:evil) $\\frac{$"


class Tags(HTMLParser):
    """All tags of a page with their attributes, and all of its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_a_report_escapes_every_name(make_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    zoo = make_zoo(20, widths=(64, 4, 10), data=DataConfig("digits"), name=TITLE)
    config = EvaluateConfig(zoo.name, (), noise=(0.03,), averages=(2,), count=8)
    evaluate(config, tmp_path, name=TITLE)
    folder = tmp_path / "reports" / TITLE
    page = Tags((folder / "report.html").read_text())
    assert TITLE in page.text
    for tag, attributes in page.found:
        assert tag not in ("script", "img") or attributes.get("src", "").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    markdown = (folder / "report.md").read_text()
    assert "&lt;img" in markdown
    assert not re.search(r"<[a-zA-Z/!?]", markdown) and "](http:evil)" not in markdown
    index = Tags((tmp_path / "reports" / "index.html").read_text())
    assert not {"script", "img"} & {tag for tag, _ in index.found}


def test_markdown_keeps_what_dwf_writes_and_takes_what_names_would():
    text = "![Accuracy](accuracy.png)\n\np < 0.01, `a`\n[a](b.html)"
    assert for_markdown(text) == text
    assert for_markdown("see <a> and [x](y)") == "see &lt;a> and [x]\\(y)"
    assert markdown_table(("a|b", "c"), [("1\n2", "|")]).splitlines()[2] == "| 1 2 | \\| |"


def test_names_in_figures_are_no_formulas(tmp_path):
    names = ["$", "$$", "a$\\frac{$b", "$x^2$", "\\$", "x_^{", "$\\undefined$"]

    def draw(width):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names, 1):
            axes.plot([1, 10, 100], [place] * 3, label=name)
            axes.text(10, place, name)
        axes.set(title=names[2], xlabel=names[6], xscale="log")
        axes.set_yticks(range(1, len(names) + 1), names)
        axes.legend()
        return figure

    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none"}):
        save_figures({"figure.png": ("names", draw)}, tmp_path)
    (wide, _) = tmp_path.glob("figures/*.svg")
    drawn = [text.strip() for text in Tags(wide.read_text()).text.splitlines()]
    assert [drawn.count(name) for name in names] == [3, 3, 4, 3, 3, 3, 4]
    assert not any("mathdefault" in text for text in drawn)  # numbers at ticks are formulas still


def test_measurements_of_nested_zoos_lie_under_their_root(tmp_path):
    """Two zoos `b` keep apart, also where neither may be written to."""
    for zoo in ("a/b", "c/b"):
        (tmp_path / "zoos" / zoo).mkdir(parents=True)
        folder = folder_of(tmp_path, zoo, name="m")
        assert folder == tmp_path / "zoos" / zoo / "measured" / "m"
        _, apart = places(tmp_path, tmp_path / "zoos" / zoo)
        assert apart == tmp_path / "runs" / f"{zoo}-measured"
        assert root_of(folder) == root_of(apart / "m") == tmp_path


def test_commands_of_records_take_nested_names_and_quote_them(tmp_path, monkeypatch):
    folder = tmp_path / "finetunes" / "a b" / "c"
    told = making_again("finetune", folder, parent="finetunes", records="run")
    words = ["dwf", "finetune", "--config", "finetunes/a b/c/run/config.yaml", "--name", "a b/c"]
    assert shlex.split(told) == words
    assert shlex.split(words_naming(folder, "finetunes")) == [
        *("--name", "a b/c", "--root", str(tmp_path)),
    ]
    monkeypatch.chdir(tmp_path)
    assert shlex.split(words_naming(folder, "finetunes")) == ["--name", "a b/c"]
