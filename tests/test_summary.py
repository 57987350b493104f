"""Several pipelines in one summary: what became of each, and rows held to report.json by hand."""

import csv
import importlib
import json
import re

import numpy as np
import pytest
import yaml

from dwf.errors import ConfigError, Preempted, StillRunning, WorkFailed
from dwf.evaluation.report import NetworkSet, seed_groups
from dwf.settings import build
from dwf.summary import Summary
from dwf.zoo.config import ZooConfig
from dwf.zoo.stage import train_zoo

ZOO = {
    "network": {"kind": "mlp", "widths": [4, 3, 3]},
    "data": {"kind": "iris", "validation": 0.2},
    "count": 14,
    "recipe": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05},
    "split": {"val": 0.15, "test": 0.15},
}
KDE = {"zoo": "any", "codec": {"kind": "flat"}, "density": {"kind": "kde", "mode": "joint"}}
EVALUATE = {"count": 2, "noise": [0.1], "averages": [2]}


@pytest.fixture
def pipeline(monkeypatch, caplog):
    """The script, whose reports draw no figures."""
    caplog.set_level("INFO", logger="dwf")
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    return importlib.import_module("dwf.commands.pipeline")


def write(folder, name, data):
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def ways(folder):
    """Settings of a way to a report under two seeds, and of one that ends with its generator."""
    train_zoo(build(ZooConfig, ZOO, source="test"), folder, name="first")
    (folder / "zoos" / "second").symlink_to("first")
    parts = {"generators": [write(folder, "kde", KDE)]}
    second = write(folder, "second", parts)
    parts |= {"sample": write(folder, "sample", {"count": 4}), "seeds": 2}
    return write(folder, "first", parts | {"evaluate": write(folder, "few", EVALUATE)}), second


def test_a_failing_one_is_named_and_the_others_are_rows(pipeline, tmp_path, caplog):
    first, second = ways(tmp_path)
    broken = write(tmp_path, "broken", {"zoo": write(tmp_path, "bad", ZOO | {"count": 0})})
    words = ["--config", first, broken, second, "--root", str(tmp_path)]
    with pytest.raises(WorkFailed, match=r"1 of 3 pipelines failed(?s:.*)  broken: .*count = 0"):
        pipeline.main(words)
    text = (tmp_path / "reports" / "summary.md").read_text()
    assert "| first | finished |" in text and "| second | finished |" in text
    assert re.search(r"^\| broken \| failed: .*bad.yaml:1: count = 0: allowed", text, re.MULTILINE)

    with open(tmp_path / "reports" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    sets = json.loads((tmp_path / "reports" / "first" / "report.json").read_text())["sets"]
    assert [row["networks"] for row in rows[:-1]] == [one["title"] for one in sets]
    for row, one in zip(rows[:-1], sets, strict=True):
        accuracies = np.array(one["networks"]["test_accuracy"])
        assert row["pipeline"] == row["report"] == "first"
        assert float(row["accuracy (%)"]) == pytest.approx(100 * accuracies.mean())
        assert float(row["worst (%)"]) == pytest.approx(100 * accuracies.min())
        assert row["mark"] == one["summary"].get("mark", {"name": "-"})["name"]
        assert text.count(f"| first | first | {row['networks']} |") == 1
    zoos = {f"first-kde-s{seed}-samples" for seed in (1, 2)}
    means = [np.mean(o["networks"]["test_accuracy"]) for o in sets if o.get("source") in zoos]
    assert len(means) == 2
    assert rows[-1]["networks"] == "kernel density over flat weights, mean over 2 seeds"
    assert float(rows[-1]["accuracy (%)"]) == pytest.approx(100 * np.mean(means))
    assert float(rows[-1]["+- (%)"]) == pytest.approx(100 * np.std(means, ddof=1))
    report = (tmp_path / "reports" / "first" / "report.md").read_text()
    assert "kernel density over flat weights over 2 seeds (1, 2): test accuracy" in report

    before = len(caplog.text)
    pipeline.main(["--config", first, second, "--root", str(tmp_path)])
    assert caplog.text[before:].count("is finished already") == 6  # five stages, and one
    assert "failed" not in (tmp_path / "reports" / "summary.md").read_text()


def test_name_and_resume_are_of_one_pipeline(pipeline, tmp_path):
    files = [write(tmp_path, name, {"evaluate": "any"}) for name in ("first", "second")]
    for words in (["--name", "any"], ["--resume"]):
        with pytest.raises(ConfigError, match="are of one pipeline, and here are 2"):
            pipeline.main(["--config", *files, *words])


def test_a_cluster_is_for_stages_that_train_networks(pipeline, tmp_path):
    file = write(tmp_path, "way", {"generators": [write(tmp_path, "kde", KDE)]})
    with pytest.raises(ConfigError, match="--nodes is of stages that train networks; here is none"):
        pipeline.main(["--config", file, "--root", str(tmp_path), "--nodes", "2", "--dry-run"])


def test_whatever_becomes_of_one_is_told_and_only_a_stop_ends_all(tmp_path, capsys):
    summary = Summary(tmp_path)
    for name, error in (("ours", ValueError("a bug")), ("there", StillRunning("job 7 goes on"))):
        with summary.following(name):
            raise error
    assert "Traceback" in capsys.readouterr().err, "of the bug"
    with pytest.raises(Preempted), summary.following("stopped"):
        raise Preempted
    assert [(one.name, one.words) for one in summary.outcomes] == [
        ("ours", "failed: ValueError: a bug"),
        ("there", "goes on elsewhere: job 7 goes on"),
    ]
    with pytest.raises(WorkFailed, match="1 of 2 pipelines failed") as caught:
        summary.refuse_failed()
    assert "there" not in str(caught.value)
    assert "| ours | failed: ValueError: a bug |" in summary.write().read_text()


def test_seeds_are_of_generators_that_differ_in_nothing_else():
    """Two seeds of one setting, another setting, and the first drawn on a condition."""

    def samples(title, mean):
        summary = {"n": 3, "test_accuracy": {"mean": mean}, "good_and_novel": 0.5}
        summary |= {"distance_ratio": {"median": 1.0}}
        return NetworkSet(title, "samples", summary, {}, source=title)

    accuracies = {"g-s1": 0.8, "g-s2": 0.9, "wide-s1": 0.1, "asked": 0.2}
    facts = {}
    for title in accuracies:
        generator = "g-s1" if title == "asked" else title
        facts[f"samples {title}"] = {"generator": generator, "digest": title, "seed": 1}
        width = 2 if title == "wide-s1" else 1
        facts[f"settings of generator {title}"] = {"width": width, "seed": int(generator[-1])}
    facts["samples asked"]["condition"] = "0.9"
    sets = [samples(*each) for each in accuracies.items()]
    (group,) = seed_groups(sets, facts)
    assert group.title == "g" and group.seeds == (1, 2) and group.sets == (sets[0], sets[1])
    assert group.over_seeds("test_accuracy") == pytest.approx((0.85, 0.1 / 2**0.5))
    assert "g over 2 seeds (1, 2): test accuracy 85 +- 7.1 %, distance 1 +- 0, " in group.note
