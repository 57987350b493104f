"""The report on a reconstruction: words, files, and when it is not made."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.codecs.config import PcaConfig
from dwf.errors import ConfigError, DataUnavailable, Preempted, RunConflict
from dwf.evaluation.config import ReconstructionConfig
from dwf.evaluation.report.reconstructed import reconstructed_set
from dwf.evaluation.report.reconstruction import Reconstruction
from dwf.zoo.store import Zoo, write_zoo
from tests.evaluation.reconstructing import fit, folder_of, report, root_of
from tests.pages import read_page


def told(covered=(True, True, False), split="test", **more) -> Reconstruction:
    tensors = [
        {"name": name, "shape": shape, "covered": is_covered}
        for name, shape, is_covered in zip(
            ("first", "constant", "norm"), ([2, 3], [5], [4]), covered, strict=True
        )
    ]
    columns = {
        "network": np.arange(2),
        "original": np.array([0.9, 0.8]),
        "reconstructed": np.array([0.7, 0.8]),
        "drop": np.array([0.2, 0.0]),
        "agreement": np.array([0.75, 0.85]),
    }
    lost, energy = np.array([3.0, 0.0, 8.0]), np.array([12.0, 0.0, 8.0])
    one = reconstructed_set(
        f"{split} networks", columns | more, lost_E=lost, energy_E=energy, tensors=tensors
    )
    return Reconstruction.of(
        "r", ReconstructionConfig(split=split), sets=[one], tensors=tensors, facts={}
    )


def test_sums_are_over_what_is_covered_and_the_rest_is_named():
    found = told()
    (one,) = found.sets
    assert one.summary["rmse"] == pytest.approx(np.sqrt(3 / (2 * 11)))
    assert one.summary["relative"] == pytest.approx(0.5)
    assert one.tensors["relative"] == [0.5, None, 1.0]
    assert found.tensor_table[0] == ("first", "2 x 3", "0.500", "0.5")
    assert found.tensor_table[1] == ("constant", "5", "-", "0")
    assert found.tensor_table[2][0] == "norm (not covered)"
    assert found.tensor_table[3] == ("all tensors", "", "0.500", "0.369")
    assert found.headline == (
        "Reconstructed test networks have a test accuracy of 75.00 +- 7.07 %, the networks "
        "themselves 85.00 +- 7.07 % (n = 2): a drop of 10.00 +- 14.14 points each. They answer "
        "80.0 % of the images as the networks themselves do.",
        "The relative error is 0.500 on test networks (1: no better than the training networks' "
        "mean); it is largest for first: 0.500. 1 tensors are not covered and come back as the "
        "training networks' mean (first: norm).",
    )
    assert "not covered" not in told(covered=(True, True, True)).headline[1]
    assert "for choices, not a result" in told(split="val").headline[0]


def test_networks_that_break_are_told_not_hidden():
    found = told(reconstructed_loss=np.array([np.nan, 1.0]))
    assert found.sets[0].networks["reconstructed_loss"] == [None, 1.0]
    broken = replace(found.sets[0], summary=found.sets[0].summary | {"rmse": None})
    assert replace(found, sets=(broken,)).table[0][-1] == "-"


def test_files_and_terminal_hold_the_same_numbers(zoo, capsys):
    fit(zoo)
    found = report(zoo)
    folder, said = folder_of(zoo), capsys.readouterr().out
    assert Reconstruction.load(folder) == found
    markdown, page = (folder / "report.md").read_text(), read_page(folder / "report.html")
    for row in (*found.table, *found.tensor_table):
        assert "| " + " | ".join(row) + " |" in markdown
        assert all(f"<td>{cell.replace('+-', '&plusmn;')}</td>" in page for cell in row)
        assert all(cell in said for cell in row)
    for paragraph in found.headline:
        assert paragraph in markdown and " ".join(paragraph.split()) in " ".join(said.split())
    assert page.count("<svg ") == 4 and "http" not in page
    assert f"report: {folder / 'report.html'}" in said
    assert json.loads((folder / "done.json").read_text())["headline"] == list(found.headline)


def test_of_many_tensors_the_worst_are_printed(zoo, capsys, monkeypatch):
    fit(zoo)
    monkeypatch.setattr("dwf.evaluation.report.reconstruction._MOST_LINES", 2)
    found = report(zoo)
    said = capsys.readouterr().out
    assert "the 2 of 4 tensors with the largest error" in said and "all tensors" in said
    relative = found.sets[0].tensors["relative"]
    for tensor, error in zip(found.tensors, relative, strict=True):
        is_worst = error >= sorted(relative)[-2]
        assert (f" {tensor['name']} " in said.split("points each")[0]) == is_worst


def test_equal_runs_write_equal_bytes_also_after_an_interruption(zoo, monkeypatch):
    fit(zoo)
    report(zoo)
    names = ("report.json", "report.md", "errors.png", "accuracy.png")
    first = {name: (folder_of(zoo) / name).read_bytes() for name in names}
    shutil.rmtree(folder_of(zoo))
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(preemption, "is_asked", lambda: True)
        report(zoo)
    assert not (folder_of(zoo) / "done.json").exists()
    report(zoo)
    assert {name: (folder_of(zoo) / name).read_bytes() for name in names} == first


def test_a_finished_report_is_read_not_made_again(zoo, monkeypatch, caplog):
    fit(zoo)
    found = report(zoo)
    monkeypatch.setattr("dwf.evaluation.reconstruction.Reconstructor", None)
    with caplog.at_level("INFO"):
        assert report(zoo) == found
    assert "report g-reconstruction is finished already" in caplog.text
    with pytest.raises(RunConflict, match="networks = 50, this one has 7"):
        report(zoo, networks=7)


def test_a_report_on_another_codec_is_not_passed_off_as_this_ones(zoo):
    fit(zoo)
    report(zoo)
    shutil.rmtree(root_of(zoo) / "runs" / "g")
    with pytest.raises(RunConflict, match="holds no generator"):
        report(zoo)
    fit(zoo, PcaConfig(components=4))
    with pytest.raises(RunConflict, match="is about a codec of fingerprint"):
        report(zoo)


def test_a_zoo_that_has_changed_is_refused(zoo):
    fit(zoo)
    changed = zoo.read() + 1
    columns = {k: v for k, v in zoo.columns.items() if k != "checksum"}
    shutil.rmtree(zoo.path)
    write_zoo(zoo.path, zoo.facts, num_rows=len(changed), blocks=[(columns, changed)])
    with pytest.raises(RunConflict, match="the generator g learnt from a zoo of"):
        report(zoo)


def test_wrong_data_are_noticed(zoo, monkeypatch):
    fit(zoo)
    shifted = replace(zoo.load_data(), scale=torch.tensor(0.0))
    monkeypatch.setattr(Zoo, "load_data", lambda self: shifted)
    with pytest.raises(DataUnavailable, match=r"has test accuracy .*the zoo says"):
        report(zoo)


def test_choices_see_nothing_of_the_test_networks_and_images(zoo, monkeypatch):
    fit(zoo)
    data = zoo.load_data()
    monkeypatch.setattr(Zoo, "load_data", lambda self: replace(data, test=None))
    found = report(zoo, split="val")
    assert found.sets[0].networks["network"] == [130, 131, 132, 133, 134]
    assert found.columns[2] == "val accuracy (%): original"


def test_a_split_without_images_is_refused(zoo, monkeypatch):
    fit(zoo)
    data = zoo.load_data()
    none = replace(data, val=replace(data.val, index=data.val.index[:0]))
    monkeypatch.setattr(Zoo, "load_data", lambda self: none)
    with pytest.raises(ConfigError, match=r"split = 'val': .*validation = 0.*split test"):
        report(zoo, split="val")
