"""The whole way on real data, small: every stage, skipped when finished, honest about copies."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

ZOO = {
    "network": {"kind": "mlp", "widths": [64, 8, 10]},
    "data": {"kind": "digits", "validation": 0.2},
    "count": 40,
    "recipe": {"epochs": 8, "batch_size": 64, "learning_rate": 0.01},
    "split": {"val": 0.15, "test": 0.15},
    "shard": 20,
}
FLOW = {
    "zoo": "filled by the pipeline",
    "codec": {"kind": "pca"},
    "density": {
        "kind": "flow",
        "backbone": {"kind": "residual_mlp", "width": 64, "depth": 2},
        "training": {"steps": 200, "batch_size": 16, "warm_up": 10, "validate_every": 50},
        "solver": {"method": "heun2", "steps": 8},
    },
}
GAUSSIAN = {"zoo": "filled", "codec": {"kind": "flat"}, "density": {"kind": "gaussian"}}


def write(folder: Path, name: str, data: dict) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def run_pipeline(file: str, root: Path) -> str:
    words = [sys.executable, "launch/pipeline.py", "--config", file, "--root", str(root)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[str, Path, str]:
    root = tmp_path_factory.mktemp("root")
    config = {
        "zoo": write(root, "zoo", data=ZOO),
        "align": write(root, "align", data={"reference": "iterated_mean", "num_pairs": 8}),
        "generators": [write(root, "whole", data=FLOW), write(root, "gaussian", data=GAUSSIAN)],
        "sample": write(root, "sample", data={"count": 12}),
        "evaluate": write(root, "evaluate", data={"count": 12}),
    }
    file = write(root, "whole", data=FLOW).replace("whole", "way")
    Path(file).write_text(yaml.safe_dump(config))
    return file, root, run_pipeline(file, root)


def test_every_stage_leaves_what_the_readme_says(finished):
    _, root, said = finished
    for path in (
        "zoos/way/zoo.json",
        "zoos/way-aligned/permutations.h5",
        "runs/way-whole/done.json",
        "runs/way-gaussian/done.json",
        "zoos/way-whole-samples/zoo.json",
        "reports/way/report.md",
        "reports/way/report.json",
        "reports/way/report.html",
    ):
        assert (root / path).exists(), path
    assert "report.html" in said
    assert not list(root.rglob("*.partial-*"))


def test_the_report_counts_every_sample_and_every_baseline(finished):
    _, root, _ = finished
    report = json.loads((root / "reports/way/report.json").read_text())
    text = json.dumps(report)
    for name in ("originals", "held-out", "way-whole-samples", "way-gaussian-samples", "noise"):
        assert name in text, name
    sizes = {s.get("source"): s["summary"]["n"] for s in report["sets"] if s["family"] == "samples"}
    assert sizes["way-whole-samples"] == 12


def test_given_again_it_does_nothing_and_says_so(finished):
    file, root, _ = finished
    before = {p: p.read_bytes() for p in root.rglob("*") if p.suffix in (".h5", ".html", ".json")}
    said = run_pipeline(file, root)
    assert said.count("is finished already") == 8  # stages, and what the PCA codec loses
    kept = {
        p: data for p, data in before.items() if p.name not in ("environment.json", "seconds.json")
    }
    assert all(p.read_bytes() == data for p, data in kept.items())


def test_a_pipeline_may_begin_at_a_zoo_that_is_there_and_end_at_samples(finished):
    """As many samples, drawn from a generator of the zoo in its own frame."""
    _, root, _ = finished
    config = {
        "generators": [write(root, "bare", data=GAUSSIAN)],
        "sample": write(root, "sample", data={"count": 12}),
    }
    (root / "zoos" / "begun").symlink_to("way")
    said = run_pipeline(write(root, "begun", data=config), root)
    assert re.findall(r"^\$ dwf (\w+) ", said, re.MULTILINE) == ["generator", "sample"]
    head = json.loads((root / "runs" / "begun-bare" / "generator.json").read_text())
    assert head["origin"]["zoo"] == "begun"
    facts = json.loads((root / "zoos" / "begun-bare-samples" / "zoo.json").read_text())
    assert facts["provenance"]["generator"] == "begun-bare"
    assert not (root / "reports" / "begun").exists()
