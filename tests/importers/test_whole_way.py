"""Of each format the whole way: import, align, generator, samples, report."""

import json

import numpy as np
import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.codecs.config import FlatConfig
from dwf.datasets.config import DataConfig
from dwf.densities.config import GaussianConfig
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.importers.config import ImportConfig, ImportedData
from dwf.importers.stage import import_zoo, report, zoos_of
from dwf.networks.config import MLPConfig
from dwf.trust import trust_pickle
from dwf.zoo.facts import UNKNOWN_IMAGES
from tests.importers import written

DIGITS = ImportedData(DataConfig("digits"), split="unknown")
MLP = {"network": MLPConfig((64, 16, 10)), "data": DIGITS}
SMALL = ImportedData(
    DataConfig("mnist", scaling="symmetric", train_images=100, test_images=100), split="unknown"
)
FORMATS = {
    "state_dict": (written.state_dicts, MLP),
    "deepweightflow": (written.deepweightflow, MLP),
    "pdiff": (written.pdiff, MLP),
    "pdiff_data": (written.pdiff_data, MLP),
    "modelzoos": (written.modelzoos, MLP),
    "huggingface": (written.huggingface, MLP),
    "unterthiner": (written.unterthiner, {"data": SMALL, "where": ("activation=relu",)}),
    "wild_park": (written.wild_park, {"data": DIGITS}),
}


def test_the_accuracies_that_were_measured_are_told(make_zoo, capsys):
    zoo = make_zoo(4, val_accuracy=np.array([0.5, 0.25, 0.75, np.nan]))
    (zoo.path / "run").mkdir()
    told = {"runs": 4, "left_out": {}, "converted": {}, "renamed": False, "differences": {}}
    (zoo.path / "run" / "done.json").write_text(json.dumps(told))
    report(zoo)
    out = capsys.readouterr().out
    assert "val accuracy: 50.00 % on average, from 25.00 to 75.00" in out and "test acc" not in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_import_align_generator_report(kind, tmp_path, capsys):
    write, more = FORMATS[kind]
    write(tmp_path / "source")
    trust_pickle(tmp_path / "source")
    config = ImportConfig(str(tmp_path / "source"), format=kind, score=("test",), **more)
    name, config = list(zoos_of(config, "zoo").items())[-1]
    zoo = import_zoo(config, tmp_path, name=name)
    report(zoo)
    assert UNKNOWN_IMAGES in capsys.readouterr().out
    align_zoo(AlignConfig(name), tmp_path, name="aligned")
    fit_generator(
        GeneratorConfig(zoo="aligned", codec=FlatConfig(), density=GaussianConfig()),
        tmp_path,
        name="made",
    )
    sample_networks(SampleConfig(generator="made", count=4), tmp_path, name="samples")
    few = {"noise": (0.1,), "averages": (2,), "count": 8}
    made = evaluate(EvaluateConfig("aligned", ("samples",), **few), tmp_path, name="report")
    assert UNKNOWN_IMAGES in made.headline
    told = json.loads((tmp_path / "reports" / "report" / "report.json").read_text())
    assert UNKNOWN_IMAGES in told["headline"]
    assert UNKNOWN_IMAGES in (tmp_path / "reports" / "report" / "report.md").read_text()
