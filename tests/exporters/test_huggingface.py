"""Folders as Hugging Face's hub keeps them, and what their cards claim; nothing is called."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import dwf
from dwf.errors import ConfigError
from dwf.exporters.config import ExportConfig
from dwf.exporters.selection import rows_of
from dwf.run_folder import write_json
from dwf.zoo.provenance import Aligned
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import bare_facts, sampled

JUDGED = {
    "format": "dwf-report",
    "version": 2,
    "name": "r",
    "headline": [],
    "config": {},
    "limits": {},
    "map_share": [],
    "sets": [
        {
            "title": "flow over flat weights",
            "source": "drawn",
            "family": "samples",
            "summary": {
                "n": 4,
                "val_accuracy": {"mean": 0.5, "std": 0.25},
                "test_accuracy": {"mean": 0.4, "std": 0.125},
                "mark": {"name": "copying", "why": "near the training networks"},
            },
            "networks": {"val_accuracy": [0.2, 0.9, 0.4, 0.5]},
        }
    ],
}


@pytest.fixture
def drawn(zoo, tmp_path) -> Zoo:
    """Four networks from a generator, without accuracies, and a report on them."""
    facts = replace(bare_facts(zoo), provenance=sampled())
    columns = {name: zoo.columns[name][:4] for name in ("network", "epoch", "split")}
    path = tmp_path / "zoos" / "drawn"
    made = write_zoo(path, facts, num_rows=4, blocks=[(columns, zoo.read()[:4])])
    folder = tmp_path / "reports" / "r"
    folder.mkdir(parents=True)
    write_json(folder / "report.json", JUDGED)
    write_json(folder / "done.json", {"fingerprints": {"drawn": made.fingerprint}})
    return made


def test_a_folder_is_complete(zoo, export):
    folder = export(zoo, "huggingface", rows=(3,), licence="cc-by-4.0") / "row-0000003"
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MLP"] and config["num_labels"] == 10
    assert config["network"]["widths"] == [64, 16, 10] and config["data"]["kind"] == "digits"
    inputs = torch.randn(3, 64)
    state = load_file(folder / "model.safetensors")
    hidden = (inputs @ state["layers.0.weight"].T + state["layers.0.bias"]).relu()
    expected = hidden @ state["layers.1.weight"].T + state["layers.1.bias"]
    assert torch.allclose(dwf.load_network(folder)(inputs), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(dwf.load_network(folder)(inputs), zoo.network(3)(inputs))


def test_the_card_tells_of_all_networks_of_the_zoo(zoo, export):
    """Read by the hub's own parser; mean and deviation by hand."""
    folder = export(zoo, "huggingface", best=2, licence="cc-by-4.0")
    row = int(np.argmax(zoo.columns["val_accuracy"]))
    card = ModelCard.load(folder / f"row-{row:07d}" / "README.md")
    assert card.data.license == "cc-by-4.0" and "weight-space-learning" in card.data.tags
    values = zoo.columns["test_accuracy"]
    mean = sum(values) / 12
    deviation = (sum((v - mean) ** 2 for v in values) / 12) ** 0.5
    told = f"| {100 * mean:.2f} +- {100 * deviation:.2f} % (n = 12) |"
    assert f"test_accuracy of all {told}" in card.text
    assert f"| test_accuracy of this network | {values[row]:.4f} |" in card.text
    assert "| generator | none |" in card.text and "| seed of the zoo | 0 |" in card.text
    assert f"fingerprint {zoo.fingerprint}" in card.text and "| commit | not known |" in card.text


def test_a_card_of_samples_has_generator_and_mark(drawn, export):
    folder = export(drawn, "huggingface", rows=(1,), report="r")
    text = (folder / "row-0000001" / "README.md").read_text()
    assert "| generator | flow (0000000000000000) |" in text
    assert "| mark (report r) | copying: near the training networks |" in text
    assert "| test_accuracy of all | 40.00 +- 12.50 % (n = 4) |" in text
    assert rows_of(ExportConfig("drawn", best=2, report="r"), drawn).tolist() == [1, 3]


def test_the_best_of_samples_are_those_of_the_newest_report(drawn, tmp_path):
    reports = tmp_path / "reports"
    shutil.copytree(reports / "r", reports / "a-newer")
    shutil.copytree(reports / "r", reports / "on-others")
    other = JUDGED["sets"][0] | {"networks": {"val_accuracy": [0.9, 0.2, 0.8, 0.5]}}
    write_json(reports / "a-newer" / "report.json", JUDGED | {"sets": [other]})
    write_json(reports / "on-others" / "done.json", {"fingerprints": {"drawn": "older"}})
    for age, name in enumerate(("on-others", "a-newer", "r")):
        os.utime(reports / name / "done.json", (1000 - age, 1000 - age))
    assert rows_of(ExportConfig("drawn", best=2), drawn).tolist() == [0, 2]
    shutil.rmtree(reports / "a-newer")
    assert rows_of(ExportConfig("drawn", best=2), drawn).tolist() == [1, 3]
    shutil.rmtree(reports / "r")
    with pytest.raises(ConfigError, match=r"no report in .* reports there: on-others\. Make one"):
        rows_of(ExportConfig("drawn", best=2), drawn)


def test_the_commit_is_that_of_the_run_that_made_the_zoo(zoo, export):
    (zoo.path / "run").mkdir()
    write_json(zoo.path / "run" / "environment.json", {"commit": "abc123", "host": "secret"})
    text = (export(zoo, "huggingface", rows=(0,)) / "row-0000000" / "README.md").read_text()
    assert "| commit | abc123 |" in text and "secret" not in text


def test_samples_that_were_aligned_are_still_a_generators():
    from dwf.exporters.card import _generator

    aligned = Aligned("drawn", "0" * 16, "m", "none", "r", 0, 0, before=sampled())
    assert _generator(aligned) == "flow (0000000000000000)"


# --- bad input -----------------------------------------------------------------------------------


def test_a_report_that_is_not_on_these_networks(zoo, drawn, export, tmp_path):
    with pytest.raises(ConfigError, match=r"report = 's': .* holds no finished report"):
        export(drawn, "huggingface", report="s")
    with pytest.raises(ConfigError, match=r"it is on drawn, not on small as it is now"):
        export(zoo, "huggingface", report="r")
    write_json(tmp_path / "reports" / "r" / "done.json", {"fingerprints": {"drawn": "older"}})
    with pytest.raises(ConfigError, match=r"not on drawn as it is now"):
        export(drawn, "huggingface", report="r")
