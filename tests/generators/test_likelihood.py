"""The recorded likelihood is that of the density, in units of weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dwf.codecs.config import FlatConfig, PcaConfig
from dwf.densities.config import GaussianConfig
from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator

CONFIG = GeneratorConfig("small", codec=FlatConfig(), density=GaussianConfig())


def recorded(tmp_path, name: str = "fitted") -> dict:
    return json.loads((tmp_path / "runs" / name / "done.json").read_text())["density"]


def test_a_flows_is_what_it_says_of_the_networks_codes(make_zoo, tmp_path, flow_on_pca):
    zoo = make_zoo(count=20)
    config = dataclasses.replace(flow_on_pca, likelihood=64, seed=3)
    generator = fit_generator(config, tmp_path, name="fitted")
    found = recorded(tmp_path)["likelihood"]
    assert found["of"] == "weights"
    for split, num in (("train", 12), ("val", 4)):
        codes = generator.codec.encode_zoo([(zoo, zoo.rows(split))])
        nats_N = generator.density.log_prob(codes, probes=4, seed=3).double() / 5
        assert found[split]["n"] == num
        assert found[split]["nats_per_number"] == pytest.approx(nats_N.mean().item(), rel=1e-5)
        assert found[split]["std"] == pytest.approx(nats_N.numpy().std(ddof=1), rel=1e-5)
    loaded = Generator.load(tmp_path / "runs" / "fitted")
    assert torch.equal(loaded.sample(2, 0), generator.sample(2, 0))


def test_a_gaussians_is_its_closed_form_in_weights(make_zoo, tmp_path):
    """Whatever the codec's scales; networks are drawn by the seed, no more than are asked for."""
    zoo = make_zoo(count=40)
    gaussian = GaussianConfig(covariance="diagonal")
    train, val = (zoo.read(zoo.rows(split)).astype(np.float64) for split in ("train", "val"))
    mean_D, variance_D = train.mean(0), train.var(0, ddof=1)
    nats = [
        (-0.5 * ((part - mean_D) ** 2 / variance_D + np.log(2 * np.pi * variance_D))).mean(1)
        for part in (train, val)
    ]
    for standardise in ("none", "per_tensor", "per_weight"):
        config = dataclasses.replace(CONFIG, codec=FlatConfig(standardise), density=gaussian)
        fit_generator(dataclasses.replace(config, likelihood=50), tmp_path, name=standardise)
        found = recorded(tmp_path, standardise)["likelihood"]
        assert found["of"] == "weights"
        for split, expected in zip(("train", "val"), nats, strict=True):
            assert found[split]["n"] == len(expected)
            assert found[split]["nats_per_number"] == pytest.approx(expected.mean(), abs=1e-5)
            assert found[split]["std"] == pytest.approx(expected.std(ddof=1), abs=1e-5)
    fit_generator(dataclasses.replace(config, likelihood=5), tmp_path, name="few")
    few = recorded(tmp_path, "few")["likelihood"]["train"]
    assert few["n"] == 5 and few["nats_per_number"] != pytest.approx(nats[0].mean(), abs=1e-5)
    assert min(nats[0]) <= few["nats_per_number"] <= max(nats[0])


def test_whitening_does_not_change_it(make_zoo, tmp_path):
    make_zoo(count=40)
    found = []
    for whiten in (False, True):
        codec = PcaConfig(components=4, whiten=whiten)
        config = dataclasses.replace(CONFIG, codec=codec, likelihood=9)
        fit_generator(config, tmp_path, name=str(whiten))
        found.append(recorded(tmp_path, str(whiten))["likelihood"])
    assert found[0]["of"] == found[1]["of"] == "weights"
    for split in ("train", "val"):
        expected = pytest.approx(found[0][split]["nats_per_number"], abs=1e-4)
        assert found[1][split]["nats_per_number"] == expected


def test_off_the_space_that_a_gaussian_spans_there_is_none(make_zoo, tmp_path):
    make_zoo()
    fit_generator(dataclasses.replace(CONFIG, likelihood=3), tmp_path, name="fitted")
    found = recorded(tmp_path)["likelihood"]
    assert found["train"]["nats_per_number"] is not None
    assert found["val"] == {"nats_per_number": None, "std": None, "n": 2}


def test_nothing_is_recorded_unless_asked(make_zoo, tmp_path):
    make_zoo()
    fit_generator(CONFIG, tmp_path, name="fitted")
    assert "likelihood" not in recorded(tmp_path)
