"""A zoo of one network, split into blocks of steps: each row counts, and the report says so."""

import numpy as np
import pytest
import torch

from dwf.codecs.config import FlatConfig
from dwf.datasets.load import load_dataset
from dwf.densities.config import GaussianConfig
from dwf.errors import TooFewNetworks
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.report.headline import ONE_NETWORK
from dwf.evaluation.stage import _curves, evaluate
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.functional import build_network, score_networks
from dwf.zoo.facts import BLOCKS_OF_STEPS
from dwf.zoo.store import Zoo, split_steps, write_zoo
from tests.evaluation.by_hand import matched_distances
from tests.evaluation.conftest import CONFIG, DATA
from tests.pages import read_page
from tests.zoos import facts_of

NUM = 30
EVALUATE = {"noise": (0.1,), "averages": (2,), "count": 4}


@pytest.fixture
def write_steps(trained, tmp_path):
    """Write a zoo of one network: `write_steps(weights_ND) -> Zoo`, with the steps 100, 110, ..."""
    layout = trained[0]

    def write(weights_ND: np.ndarray) -> Zoo:
        data, state = load_dataset(DATA), layout.unflatten(torch.from_numpy(weights_ND))
        columns = {
            "network": np.zeros(NUM, np.int64),
            "epoch": np.full(NUM, 12),
            "step": 100 + 10 * np.arange(NUM),
            "split": split_steps(NUM, 0.2, test=0.2),
        }
        columns |= {
            f"{name}_accuracy": score_networks(
                build_network(CONFIG), state, data=data, part=part
            ).accuracy_N
            for name, part in (("val", data.val), ("test", data.test))
        }
        facts = facts_of(layout, CONFIG, data=DATA, split_by=BLOCKS_OF_STEPS)
        return write_zoo(
            tmp_path / "zoos" / "z", facts, num_rows=NUM, blocks=[(columns, weights_ND)]
        )

    return write


def test_each_step_counts_from_generator_to_report_and_the_report_says_so(
    trained, write_steps, tmp_path
):
    steps_N1 = np.random.default_rng(0).standard_normal((NUM, trained[1].shape[2])).cumsum(0)
    zoo = write_steps((trained[1][1, 0] + 0.003 * steps_N1).astype(np.float32))
    generator = GeneratorConfig("z", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(generator, tmp_path, name="g")
    drawn = sample_networks(SampleConfig("g", count=5), tmp_path, name="s")
    assert drawn.facts.split_by is None
    report = evaluate(EvaluateConfig("z", ("s",), **EVALUATE), tmp_path, name="r")
    sizes = {one.title: one.n for one in report.sets}
    assert sizes["originals (training)"] == 18 and sizes["held-out networks"] == 6
    assert sizes["Gaussian over flat weights"] == 5
    assert [one.source for one in report.of("samples")] == ["s"]
    assert report.headline[-1] == ONE_NETWORK
    folder = tmp_path / "reports" / "r"
    for file in ("report.md", "report.html"):
        assert ONE_NETWORK in read_page(folder / file)
    originals, held_out, samples = report.sets[:3]
    assert originals.networks["network"] == zoo.columns["step"][:18].tolist()
    assert held_out.networks["nearest"] == [270] * 6, "a walk: the last training step is nearest"
    assert samples.networks["network"] == [0, 1, 2, 3, 4]
    lines = _curves(tmp_path, zoo, [drawn])["steps of zoo z: accuracy"]
    np.testing.assert_array_equal(lines["val_accuracy"][:, 0], zoo.columns["step"])
    np.testing.assert_array_equal(lines["val_accuracy"][:, 1], zoo.columns["val_accuracy"])
    assert "Training curves" in (folder / "report.html").read_text()


def test_of_one_network_its_first_rows_are_what_samples_are_held_against(
    trained, write_steps, tmp_path
):
    steps_N1 = np.random.default_rng(0).standard_normal((NUM, trained[1].shape[2])).cumsum(0)
    zoo = write_steps((trained[1][1, 0] + 0.003 * steps_N1).astype(np.float32))
    generator = GeneratorConfig("z", rows=8, codec=FlatConfig(), density=GaussianConfig())
    fit_generator(generator, tmp_path, name="g")
    drawn = sample_networks(SampleConfig("g", count=5), tmp_path, name="s")
    assert drawn.facts.sampled.subset == {"rows": 8}
    report = evaluate(EvaluateConfig("z", ("s",), **EVALUATE), tmp_path, name="r")
    (samples,) = report.of("samples")
    learnt_ND = zoo.read(np.arange(8))
    distance_S = matched_distances(zoo, drawn.read(), learnt_ND)
    np.testing.assert_allclose(samples.networks["distance"], distance_S, rtol=1e-6)
    assert set(samples.networks["nearest"]) <= set(range(100, 180, 10)), "steps"
    assert {one.summary["good_and_novel"] for one in report.sets} == {0}, "of a single run"
    assert "nothing is called novel" in " ".join(report.headline)
    assert samples.label == "Gaussian over flat weights (learnt from first 8 rows)"
    assert {one.summary["learnt_from"] for one in report.sets} == {8, 18}
    assert "PCA + Gaussian (first 8 rows)" in {one.title for one in report.sets}


def test_steps_in_which_nothing_was_learnt_are_refused(trained, write_steps, tmp_path):
    write_steps(np.tile(trained[1][1, 0], (NUM, 1)))
    with pytest.raises(TooFewNetworks, match=r"18 of 18 training networks are copies.*keep\.every"):
        evaluate(EvaluateConfig("z", **EVALUATE), tmp_path, name="r")
