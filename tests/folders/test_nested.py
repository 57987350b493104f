"""Names of several parts: what is made under one is found, listed and linked like any other."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from dwf.evaluation.report import INDEX
from dwf.evaluation.report.figures import STYLE
from dwf.exporters.judged import newest_on
from dwf.folders.status import read_standings
from dwf.names import folders_in
from dwf.pipeline import STAGES
from dwf.settings import build
from dwf.sweeps.trial import make_zoo
from dwf.zoo.config import ZooConfig
from dwf.zoo.store import Zoo

DATA = {"kind": "digits", "validation": 0.2}
SETTINGS = {
    "zoo": {
        "network": {"kind": "mlp", "widths": [64, 4, 10]},
        "data": DATA,
        "count": 16,
        "recipe": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01},
        "split": {"val": 0.2, "test": 0.2},
    },
    "align": {"num_pairs": 2},
    "generator": {"codec": {"kind": "flat"}, "density": {"kind": "gaussian"}},
    "sample": {"count": 4},
    "evaluate": {"count": 4, "noise": [0.1], "averages": [2]},
    "finetune": {"data": DATA, "count": 2, "epochs": [0, 1], "arms": ["generated", "random"]},
    "predictor": {"properties": ["val_accuracy"], "rows": {"constant": {"kind": "constant"}}},
}
MADE = {
    "zoos": ["g/way", "g/way-aligned", "g/way-flat-samples"],
    "runs": ["g/tell", "g/way-flat"],
    "reports": ["g/way"],  # that of predictors lies in their run
    "finetunes": ["g/way"],
}


class _Links(HTMLParser):
    def __init__(self, page: Path):
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found += [str(value) for name, value in attrs if tag == "a" and name == "href"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root in which stages were run under nested names."""
    folder = tmp_path_factory.mktemp("nested")

    def make(stage: str, name: str, **links: object) -> None:
        config = build(STAGES[stage].config, SETTINGS[stage] | links, source=stage)
        STAGES[stage].run(config, folder, name=name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(STYLE, "savefig.dpi", 20)
        make("zoo", "g/way")
        make("align", "g/way-aligned", zoo="g/way")
        make("generator", "g/way-flat", zoo="g/way-aligned")
        make("sample", "g/way-flat-samples", generator="g/way-flat")
        for stage in ("evaluate", "finetune"):
            make(stage, "g/way", zoo="g/way-aligned", samples=["g/way-flat-samples"])
        make("predictor", "g/tell", zoos=["g/way"])
    return folder


def test_every_part_of_a_name_leads_on_and_no_folder_of_a_run_is_a_name(tmp_path):
    for path in ("a", "b/c", "b/d/e", "f/run", "g/checkpoints"):
        (tmp_path / "runs" / path).mkdir(parents=True)
    (tmp_path / "runs" / "g" / "config.yaml").touch()
    (tmp_path / "runs" / "b" / ".lock").touch()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "runs" / "b")
    runs = tmp_path / "runs"
    assert folders_in(runs) == [runs / name for name in ("a", "b/c", "b/d/e", "f", "g", "link")]
    assert folders_in(tmp_path / "zoos") == []


def test_all_that_is_made_under_nested_names_is_listed_under_them(root):
    found = {f"{one.place.kind.parent}/{one.place.name}": one for one in read_standings(root)}
    assert sorted(found) == sorted(f"{kind}/{name}" for kind in MADE for name in MADE[kind])
    for path, one in found.items():
        assert one.state == "finished" and one.cells[0] == path
    assert Zoo.open(root / "zoos" / "g" / "way").name == "g/way"


def test_pages_of_nested_names_lead_to_what_is_there(root):
    pages = [INDEX, "reports/g/way/report.html", "finetunes/g/way/report.html"]
    for file in (root / page for page in [*pages, "reports/g/tell/report.html"]):
        links = [link for link in _Links(file).found if not link.startswith(("#", "http"))]
        assert links
        for link in links:
            assert (file.parent / unquote(link)).exists(), f"{file}: {link}"
        if file != root / INDEX:
            assert os.path.relpath(root / INDEX, file.parent) in links
    listed = {unquote(link) for link in _Links(root / INDEX).found}
    assert listed >= {f"../zoos/{name}/" for name in MADE["zoos"]} | {
        "../reports/g/way/report.html",
        "../reports/g/tell/report.html",
        "../finetunes/g/way/report.html",
    }
    assert not (root / "finetunes" / "reports").exists()


def test_reports_and_zoos_of_nested_names_are_found_again(root):
    assert newest_on(Zoo.open(root / "zoos" / "g" / "way-flat-samples")) == "g/way"
    settings = yaml.safe_load((root / "zoos" / "g" / "way" / "run" / "config.yaml").read_text())
    make_zoo(build(ZooConfig, settings, source="test"), root / "sweeps" / "s" / "t", name="trial")
    assert (root / "sweeps" / "s" / "t" / "zoos" / "trial").resolve() == root / "zoos" / "g" / "way"
