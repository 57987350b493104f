"""Which zoos of several architectures are learnt from together, and how that is told."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dwf.backbones.config import TransformerConfig
from dwf.codecs.config import FlatConfig, NeuronsConfig, PcaConfig, TokensConfig
from dwf.densities.config import FlowConfig, GaussianConfig, KdeConfig, SolverConfig
from dwf.errors import ConfigError, NotAZoo, RunConflict
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.learning import learning_of_codec, learning_of_density, origin_facts
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.settings import to_dict
from dwf.training import loop
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.manifest import write_manifest
from dwf.zoo.store import Zoo

ROOT = Path(__file__).parents[2]
WIDTHS = {"small": (64, 16, 10), "narrow": (64, 12, 10), "narrower": (64, 8, 10)}
TRAINING = LoopConfig(
    steps=6,
    batch_size=8,
    ema=0.9,
    validate_every=3,
    compute=LoopComputeConfig(threads=1, device="cpu"),
)
FLOW = FlowConfig(
    backbone=TransformerConfig(width=16, heads=2, depth=1),
    training=TRAINING,
    solver=SolverConfig(method="euler", steps=3),
)
MIXED = GeneratorConfig(
    "small", codec=NeuronsConfig(), density=FLOW, more_zoos=("narrow", "narrower"), likelihood=64
)


@pytest.fixture
def zoos(make_zoo) -> dict[str, Zoo]:
    return {
        name: make_zoo(widths=widths, name=name, seed=seed)
        for seed, (name, widths) in enumerate(WIDTHS.items())
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"codec": FlatConfig()},
            "codec.kind = 'flat', which has no masks .* codec.kind to neuron",
        ),
        ({"codec": PcaConfig()}, "codec.kind = 'pca', which has no masks"),
        ({"codec": TokensConfig(size=25)}, "codec.kind = 'tokens', which has no masks"),
        ({"density": GaussianConfig()}, "density.kind = 'gaussian', .*: set density.kind to flow"),
        ({"density": KdeConfig()}, "density.kind = 'kde', which has no masks"),
        ({"more_zoos": ("narrow", "narrow")}, "each zoo once"),
        ({"more_zoos": ("narrow", "small")}, "each zoo once"),
        ({"codec_zoos": ("narrow",)}, "each zoo once"),
    ],
)
def test_what_cannot_take_several_architectures_is_refused(zoos, tmp_path, settings, said):
    config = dataclasses.replace(MIXED, **settings)
    with pytest.raises(ConfigError, match=said):
        fit_generator(config, tmp_path, name="fitted")
    assert not (tmp_path / "runs").exists()
    if "each zoo once" not in said:
        with pytest.raises(ConfigError, match=said):
            plan(config, tmp_path, name="g")


def test_zoos_of_one_architecture_are_to_be_merged(zoos, make_zoo, tmp_path):
    make_zoo(widths=WIDTHS["narrow"], name="twin", seed=9)
    for more in (("narrow", "twin"), ("twin", "narrow")):
        config = dataclasses.replace(MIXED, more_zoos=more)
        with pytest.raises(ConfigError, match=r"has the architecture of .*: put .* dwf merge"):
            fit_generator(config, tmp_path, name="fitted")
    with pytest.raises(NotAZoo, match="zoos/none is not a zoo"):
        fit_generator(dataclasses.replace(MIXED, more_zoos=("none",)), tmp_path, name="fitted")


def test_codec_and_density_learn_from_all(zoos, tmp_path):
    first, *more = zoos.values()
    codec = learning_of_codec(MIXED, first, zoos=tmp_path / "zoos", more=more)
    density = learning_of_density(MIXED, first, more=more)
    for learning in (codec, density):
        for split, sources in (("train", learning.train), ("val", learning.val)):
            assert [zoo.name for zoo, _ in sources] == list(WIDTHS)
            assert all(rows.tolist() == zoo.rows(split).tolist() for zoo, rows in sources)


@pytest.mark.parametrize("density", [FLOW, GaussianConfig(), KdeConfig()])
def test_the_codec_alone_learns_from_no_other_width(zoos, tmp_path, density):
    """The sequence would have tokens that no network has which the density learns from."""
    config = dataclasses.replace(MIXED, density=density, more_zoos=(), codec_zoos=("narrow",))
    with pytest.raises(ConfigError, match=r"zoos/narrow has another architecture .* in more_zoos"):
        fit_generator(config, tmp_path, name="fitted")
    assert not (tmp_path / "runs").exists()


def test_the_codec_alone_learns_from_more_networks_of_the_same_widths(make_zoo, tmp_path):
    make_zoo(name="small")
    make_zoo(name="twin", seed=1)
    config = dataclasses.replace(MIXED, more_zoos=(), codec_zoos=("twin",), likelihood=0)
    generator = fit_generator(config, tmp_path, name="fitted")
    num = len(learning_of_density(config, Zoo.open(tmp_path / "zoos" / "small")).train[0][1])
    assert generator.codec.facts["networks"] == 2 * num
    assert generator.sample(3, seed=0).shape == (3, generator.layout.size)


def test_a_block_of_narrow_networks_holds_no_more_codes_than_one_of_wide(zoos, tmp_path):
    generator = fit_generator(MIXED, tmp_path, name="fitted")
    sizes = {generator.of_zoo(name).block_size for name in WIDTHS}
    assert sizes == {2**28 // (4 * zoos["small"].layout.size)}


def test_the_origin_of_one_zoo_is_as_it_was(zoos):
    first, *more = zoos.values()
    alone, together = origin_facts(first, 0), origin_facts(first, 0, more=more)
    assert "more_zoos" not in alone
    assert together.pop("more_zoos") == [origin_facts(one, 0) for one in more]
    assert together == alone


def test_settings_that_are_newer_than_a_generator_leave_its_digest(make_zoo, tmp_path):
    """Samples that were drawn before a setting was added are still its samples."""
    make_zoo()
    config = GeneratorConfig("small", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(config, tmp_path, name="fitted")
    head = tmp_path / "runs" / "fitted" / "generator.json"
    old = json.loads(head.read_text())
    assert old["density"].pop("shrinkage") == 0  # as if it were new
    head.write_text(json.dumps(old))
    before = Generator.load(head.parent).digest
    sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    provenance = Zoo.open(tmp_path / "zoos" / "drawn").facts.sampled
    assert provenance.digest == before
    assert Generator.load(head.parent).digest == before
    old["density"]["shrinkage"] = 0.0
    head.write_text(json.dumps(old))
    assert Generator.load(head.parent).digest != before
    with pytest.raises(RunConflict, match="drawn from a generator fitted of digest"):
        sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")


def test_an_unknown_zoo_to_draw_is_refused(make_zoo, tmp_path):
    make_zoo()
    config = GeneratorConfig("small", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(config, tmp_path, name="fitted")
    with pytest.raises(ConfigError, match="zoo = 'narrow': this generator learnt from small: name"):
        sample_networks(SampleConfig("fitted", zoo="narrow"), tmp_path, name="drawn")
    assert not (tmp_path / "zoos" / "drawn").exists()
    drawn = sample_networks(SampleConfig("fitted", count=2, zoo="small"), tmp_path, name="drawn")
    assert drawn.facts.sampled.zoo == "small"
    assert "learnt_from" not in drawn.facts.to_json()["provenance"]


def test_a_pipeline_asks_first_for_zoos_that_it_does_not_make(tmp_path):
    generator, way = tmp_path / "mixed.yaml", tmp_path / "way.yaml"
    mixed = dataclasses.replace(
        MIXED, more_zoos=("mnist_mlp-aligned",), codec_zoos=("other", "way")
    )
    generator.write_text(yaml.safe_dump(to_dict(mixed)))
    files = {part: f"configs/{part}/mnist_mlp.yaml" for part in ("zoo",)}
    files |= {"align": "configs/align/balanced.yaml", "sample": "configs/sample/few.yaml"}
    files |= {"evaluate": "configs/evaluate/default.yaml", "generators": [str(generator)]}
    way.write_text(yaml.safe_dump(files))
    words = [sys.executable, "launch/pipeline.py", "--config", str(way), "--root", str(tmp_path)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert ran.returncode == 2
    said = " ".join(ran.stderr.split())
    assert f"learns from {tmp_path}/zoos/mnist_mlp-aligned too, which is not there" in said
    assert "dwf zoo --config configs/zoo/mnist_mlp.yaml --name mnist_mlp, then" in said
    assert "dwf align --zoo mnist_mlp --name mnist_mlp-aligned" in said
    assert "dwf zoo --config FILE --name other" in said
    assert said.count("which is not there") == 2  # `way` is what the pipeline calls its own
    assert {path.name for path in tmp_path.iterdir()} == {"mixed.yaml", "way.yaml"}


def test_several_architectures_are_fitted_drawn_and_held_against_their_own_zoos(zoos, tmp_path):
    generator = fit_generator(MIXED, tmp_path, name="fitted")
    summary = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    assert summary["codec"]["networks"] == 24 and summary["codec"]["round_trip"]["rmse"] < 1e-6
    likelihood = summary["density"]["likelihood"]
    assert (likelihood["train"]["n"], likelihood["val"]["n"]) == (24, 6)
    for name, zoo in zoos.items():
        config = SampleConfig("fitted", count=5, seed=1, zoo=name)
        drawn = sample_networks(config, tmp_path, name=f"{name}-drawn")
        assert drawn.layout == zoo.layout
        assert drawn.facts.network == zoo.facts.network
        expected = generator.of_zoo(name).sample(5, seed=1)
        assert expected.isfinite().all() and expected.std(0).min() > 0
        np.testing.assert_array_equal(drawn.read(), expected.numpy())
        provenance = drawn.facts.sampled
        assert provenance.zoo == name and provenance.learnt_from == tuple(WIDTHS)
        origin = origin_facts(zoo, 0)
        assert provenance.zoo_fingerprint == origin["fingerprint"]
        assert provenance.digest == summary["digest"]
    first = sample_networks(SampleConfig("fitted", count=5, seed=1), tmp_path, name="first")
    np.testing.assert_array_equal(
        first.read(), Zoo.open(zoos["small"].path.parent / "small-drawn").read()
    )
    evaluation = {"noise": (0.1,), "averages": (2,), "count": 3, "split": "val"}
    about = EvaluateConfig("narrow", ("narrow-drawn",), **evaluation)
    report = evaluate(about, tmp_path, name="narrow")
    assert [one.n for one in report.sets if one.family == "samples"] == [5]
    with pytest.raises(ConfigError, match=r"are drawn for 'narrow', another .* --zoo nar"):
        evaluate(dataclasses.replace(about, zoo="small"), tmp_path, name="small")


def test_the_name_of_a_manifest_is_that_of_its_zoos(zoos, tmp_path):
    """The same generator as by their names; a report is on the zoo that samples are like."""
    write_manifest(tmp_path / "zoos" / "all", {name[-3:]: name for name in WIDTHS})
    config = dataclasses.replace(MIXED, zoo="all", more_zoos=(), likelihood=0)
    by_names = dataclasses.replace(MIXED, likelihood=0)
    told = [plan(each, tmp_path, name="fitted").splitlines()[1:] for each in (config, by_names)]
    assert told[0] == told[1]
    generator = fit_generator(config, tmp_path, name="fitted")
    named = fit_generator(by_names, tmp_path, name="named")
    assert generator.digest == named.digest
    assert torch.equal(generator.sample(3, seed=0), named.sample(3, seed=0))
    assert fit_generator(config, tmp_path, name="fitted").digest == named.digest
    sample_networks(SampleConfig("fitted", count=4, zoo="narrow"), tmp_path, name="drawn")
    about = EvaluateConfig("all", ("drawn",), noise=(0.1,), averages=(2,), count=3, split="val")
    assert "zoo narrow" in evaluate(about, tmp_path, name="report").facts
    with pytest.raises(ConfigError, match="zoo = 'all' stands for small, narrow, narrower, of wh"):
        evaluate(dataclasses.replace(about, samples=()), tmp_path, name="other")
    (tmp_path / "zoos" / "all" / "zoo.json").unlink()
    write_manifest(tmp_path / "zoos" / "all", {"a": "small", "b": "narrow"})
    with pytest.raises(RunConflict, match="learnt from the zoos small, narrow, narrower, now"):
        fit_generator(config, tmp_path, name="fitted")


def test_the_likelihood_of_several_is_each_ones_own(zoos, tmp_path):
    """Per number that a network has, not per number of the union."""
    generator = fit_generator(MIXED, tmp_path, name="fitted")
    summary = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    first, *rest = zoos.values()
    learning = learning_of_density(MIXED, first, more=rest)
    codes = generator.codec.encode_zoo(learning.val)
    log_N = generator.density.log_prob(codes, probes=4, seed=0).double()
    sizes_N = torch.tensor([zoo.layout.size for zoo, rows in learning.val for _ in rows])
    volume_N = torch.tensor(
        [
            np.log(generator.codec.arrays[name].astype(np.float64)).sum()
            for (zoo, rows), name in zip(learning.val, scales_of(zoos), strict=True)
            for _ in rows
        ]
    )
    found = summary["density"]["likelihood"]
    assert found["of"] == "weights"
    expected = ((log_N - volume_N) / sizes_N).mean().item()
    assert found["val"]["nats_per_number"] == pytest.approx(expected, rel=1e-5)


def scales_of(zoos: dict[str, Zoo]) -> list[str]:
    digests = [zoo.layout.digest for zoo in zoos.values()]
    return ["scale_D", *(f"{digest}_scale_D" for digest in digests[1:])]


@pytest.mark.parametrize("how", [{}, {"behaviour": 0.5, "standardise": "none"}])
def test_stopped_in_training_it_goes_on_to_the_same_bytes(zoos, tmp_path, monkeypatch, how):
    training = dataclasses.replace(
        TRAINING, compute=dataclasses.replace(TRAINING.compute, save_seconds=0.0)
    )
    config = dataclasses.replace(MIXED, density=dataclasses.replace(FLOW, training=training, **how))
    update, updates = loop._Loop._update, []

    def stop_at_the_fourth(self):
        updates.append(self)
        if len(updates) == 4:
            raise KeyboardInterrupt
        update(self)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(loop._Loop, "_update", stop_at_the_fourth)
        fit_generator(config, tmp_path, name="stopped")
    assert not (tmp_path / "runs" / "stopped" / "done.json").exists()
    resumed = fit_generator(config, tmp_path, name="stopped")
    straight = fit_generator(config, tmp_path, name="straight")
    for name in WIDTHS:
        drawn = [one.of_zoo(name).sample(4, seed=2) for one in (resumed, straight)]
        assert torch.equal(*drawn)
    folders = [tmp_path / "runs" / name for name in ("stopped", "straight")]
    assert files(folders[0]) == files(folders[1])
    make = zoos["narrow"].path
    loaded = Generator.load(folders[0]).of_zoo("narrow")
    assert loaded.layout == Zoo.open(make).layout
    assert torch.equal(loaded.sample(4, seed=2), straight.of_zoo("narrow").sample(4, seed=2))


def files(folder: Path) -> dict[str, bytes]:
    names = "codec/codec.npz", "codec/codec.json", "generator.json", "done.json"
    return {name: (folder / name).read_bytes() for name in names}


def test_another_zoo_of_a_name_is_refused(zoos, make_zoo, tmp_path):
    fit_generator(MIXED, tmp_path, name="fitted")
    make_zoo(widths=WIDTHS["narrower"], name="narrower", seed=8)
    with pytest.raises(RunConflict, match="learnt from a zoo narrower of fingerprint"):
        fit_generator(MIXED, tmp_path, name="fitted")


def test_the_plan_tells_of_each_zoo(zoos, tmp_path):
    said = plan(MIXED, tmp_path, name="g")
    for name, weights in (("small", "1,210"), ("narrow", "910"), ("narrower", "610")):
        assert (
            f"8 training and 2 validation networks of {weights} weights in {tmp_path}/zoos/{name}"
            in said
        )
    generator = fit_generator(MIXED, tmp_path, name="fitted")
    num = sum(p.numel() for p in generator.density.module.parameters())
    size = generator.density.shape.size
    assert f"neurons codes of {size:,} numbers for 3 architectures, density flow with" in said
    assert f"transformer of {num:,} parameters" in said
    assert "likelihood of up to 64 training and as many held-out networks" in said
    missing = plan(dataclasses.replace(MIXED, more_zoos=("none",)), tmp_path, name="g")
    assert "zoos/none: not there yet" in missing and "8 training" in missing
