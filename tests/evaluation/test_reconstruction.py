"""What a codec loses: the numbers against plain loops."""

import shutil
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.codecs.codec import Codec
from dwf.codecs.config import (
    BehaviourConfig,
    CodecConfig,
    FlatConfig,
    FunctionsConfig,
    PcaConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
    TokenSettings,
)
from dwf.codecs.sane.behaviour import Behaviour
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.codecs.windows.sampler import WindowSampler
from dwf.commands import COMMANDS
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.evaluation.config import ReconstructionConfig
from dwf.evaluation.reconstruction import choose_networks, report_fit
from dwf.evaluation.report.reconstruction import Reconstruction
from dwf.evaluation.report.sets import statistics
from dwf.generators.config import GeneratorConfig
from dwf.generators.round_trip import round_trip_error
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import batchnorm_layers, score_networks
from dwf.zoo.facts import BLOCKS_OF_STEPS
from dwf.zoo.store import Zoo, write_zoo
from tests.evaluation.conftest import BATCHNORM_SPLIT
from tests.evaluation.reconstructing import EXACT, LOSSY, fit, folder_of, of_splits, report, root_of
from tests.pages import read_page


def logits_of(zoo, row_D, part="test"):
    """Of one network on all images, by plain torch; with the labels."""
    data, network = zoo.load_data(), zoo.build_network()
    network.load_state_dict(zoo.layout.unflatten(torch.from_numpy(row_D)), strict=False)
    chosen = getattr(data, part)
    images, labels = chosen.batch(torch.arange(len(chosen)))
    with torch.no_grad():
        return network(data.prepare(images)), labels


def test_every_number_is_that_of_a_plain_loop(zoo):
    codec = fit(zoo)
    found = report(zoo)
    test, training = found.sets
    assert (test.title, test.n, training.title, training.n) == (
        "test networks", 25, "training networks", 25,
    )  # fmt: skip
    weights_ND = zoo.read(zoo.rows("test", "last"))
    codes = codec.encode(torch.from_numpy(weights_ND), zoo.layout)
    decoded_ND = codec.decode(codes, zoo.layout).numpy()
    assert test.networks["network"] == zoo.columns["network"][zoo.rows("test", "last")].tolist()
    for i, (before_D, after_D) in enumerate(zip(weights_ND, decoded_ND, strict=True)):
        (before, labels), (after, _) = logits_of(zoo, before_D), logits_of(zoo, after_D)
        right = [(each.argmax(1) == labels).double().mean().item() for each in (before, after)]
        assert test.networks["original"][i] == pytest.approx(right[0])
        assert test.networks["reconstructed"][i] == pytest.approx(right[1])
        assert test.networks["drop"][i] == pytest.approx(right[0] - right[1])
        same = (before.argmax(1) == after.argmax(1)).double().mean().item()
        assert test.networks["agreement"][i] == pytest.approx(same) and same < 1
        loss = cross_entropy(after, labels).item()
        assert test.networks["reconstructed_loss"][i] == pytest.approx(loss, rel=1e-4)
    mean_D = zoo.read(zoo.rows("train", "last")).astype(np.float64).mean(0)
    assert len(found.tensors) == len(zoo.layout.entries) == 4
    for i, entry in enumerate(zoo.layout.entries):
        part = slice(entry.offset, entry.stop)
        wanted = weights_ND[:, part].astype(np.float64)
        lost = ((decoded_ND[:, part] - wanted) ** 2).sum()
        energy = ((wanted - mean_D[part]) ** 2).sum()
        assert found.tensors[i] == {
            "name": entry.name,
            "shape": list(entry.shape),
            "covered": True,
        }
        assert test.tensors["rmse"][i] == pytest.approx(np.sqrt(lost / wanted.size))
        assert test.tensors["relative"][i] == pytest.approx(np.sqrt(lost / energy))
    whole = round_trip_error(codec, [(zoo, zoo.rows("test", "last"))])
    assert test.summary["rmse"] == pytest.approx(whole["rmse"], rel=1e-5)
    assert test.summary["relative"] == pytest.approx(whole["relative"], rel=1e-5)
    for measure in ("original", "reconstructed", "drop", "agreement"):
        assert test.summary[measure] == statistics(np.array(test.networks[measure]))
    assert training.summary["relative"] < test.summary["relative"] < 1


def test_blocks_change_nothing(zoo, monkeypatch):
    fit(zoo)
    whole = report(zoo)
    shutil.rmtree(folder_of(zoo))
    monkeypatch.setitem(Zoo.stream.__kwdefaults__, "max_bytes", 28 * zoo.layout.size)
    parts = report(zoo)
    assert len(list(zoo.stream(zoo.rows("test", "last")))) == 4
    for one, other in zip(whole.sets, parts.sets, strict=True):
        assert one.networks["reconstructed"] == other.networks["reconstructed"]
        np.testing.assert_allclose(one.tensors["rmse"], other.tensors["rmse"], rtol=1e-6)


def test_an_exact_codec_loses_nothing(zoo):
    fit(zoo, EXACT)
    for one in report(zoo).sets:
        assert one.summary["drop"]["min"] == one.summary["drop"]["max"] == 0
        assert one.summary["agreement"]["min"] == 1
        assert one.summary["rmse"] == 0 and one.tensors["relative"] == [0, 0, 0, 0]


def test_the_training_networks_mean_has_a_relative_error_of_one(zoo, monkeypatch):
    codec = fit(zoo)
    mean_D = torch.from_numpy(codec.arrays["template_D"])
    monkeypatch.setattr(Codec, "decode", lambda self, codes, _: mean_D.repeat(len(codes), 1))
    found = report(zoo)
    for one in found.sets:
        np.testing.assert_allclose(one.tensors["relative"], 1, rtol=1e-5)
    assert "The relative error is 1.000 on test networks" in found.headline[1]


def test_only_codecs_that_lose_something_are_reported_on():
    assert {each.kind for each in get_args(CodecConfig) if not each.is_lossless} == {
        "pca",
        "sane",
        "conv_autoencoder",
        "vae",
        "functions",
    }
    assert FlatConfig().is_lossless and not PcaConfig().is_lossless


def test_networks_are_the_last_of_held_out_and_as_many_of_training_ones(zoo):
    chosen = choose_networks(zoo, ReconstructionConfig())
    np.testing.assert_array_equal(chosen["test networks"], zoo.rows("test", "last"))
    assert len(chosen["training networks"]) == 25
    assert set(chosen["training networks"]) < set(zoo.rows("train", "last"))
    few = choose_networks(zoo, ReconstructionConfig(networks=7, split="val", seed=3))
    assert [len(rows) for rows in few.values()] == [5, 5] and next(iter(few)) == "val networks"
    drawn = choose_networks(zoo, ReconstructionConfig(networks=7))["test networks"]
    assert set(drawn) < set(zoo.rows("test", "last")) and (np.diff(drawn) > 0).all()
    assert len(drawn) == 7 and drawn[-1] > drawn[0] + 12  # not the first ones


def test_a_zoo_that_holds_nothing_out_is_reported_by_its_training_networks(zoo):
    only = of_splits(zoo, "only", splits=["train"])
    fit(only)
    found = report(only)
    assert [one.title for one in found.sets] == ["training networks"]
    assert "Reconstructed training networks" in found.headline[0]
    with pytest.raises(TooFewNetworks, match="neither test networks nor training networks"):
        choose_networks(of_splits(zoo, "none", splits=[]), ReconstructionConfig())


def test_another_zoo_has_a_report_of_its_own(zoo, capsys):
    fit(zoo)
    of_splits(zoo, "other", splits=["val", "test"])
    root = root_of(zoo)
    words = [str(root / "runs" / "g"), "--zoo", "other"]
    main = COMMANDS["reconstruction"].run
    main([*words, "--split", "val", "--networks", "4"])
    found = Reconstruction.load(root / "reports" / "g-reconstruction-other")
    assert found.facts["zoo"] == "other" and [one.n for one in found.sets] == [4]
    assert "report g-reconstruction-other" in capsys.readouterr().out
    with pytest.raises(RunConflict, match="holds no generator"):
        main([str(root / "runs" / "nowhere")])
    with pytest.raises(ConfigError, match="networks = 0: allowed is at least 1"):
        main([*words, "--networks", "0"])


def test_without_training_networks_errors_are_relative_to_nothing(zoo):
    fit(zoo)
    of_splits(zoo, "other", splits=["test"])
    (whole, _), (alone,) = report(zoo).sets, report(zoo, zoo="other").sets
    assert alone.summary["rmse"] == pytest.approx(whole.summary["rmse"])
    assert alone.summary["relative"] is None and set(alone.tensors["relative"]) == {None}
    page = (folder_of(zoo).with_name("g-reconstruction-other") / "report.md").read_text()
    assert "no distance to a training mean" in page and "no better than" not in page


def test_steps_of_one_network_are_called_that(zoo):
    rows = np.flatnonzero(zoo.columns["epoch"] == 12)
    columns = {k: v[rows] for k, v in zoo.columns.items() if k != "checksum"}
    facts = replace(zoo.facts, split_by=BLOCKS_OF_STEPS)
    block = (columns | {"network": np.zeros(len(rows), np.int64)}, zoo.read(rows))
    one = write_zoo(zoo.path.parent / "one", facts, num_rows=len(rows), blocks=[block])
    fit(one)
    found = report(one)
    assert [each.n for each in found.sets] == [25, 25]
    assert found.headline[-1].startswith("This zoo is one network: its rows are steps")
    assert found.headline[-1] in read_page(folder_of(one) / "report.html")


def test_after_a_fit_there_is_a_report_where_there_can_be_one(
    zoo, batchnorm_networks, write_batchnorm, caplog
):
    def say(codec, zoo):
        fit(zoo, codec)
        config = GeneratorConfig(zoo=zoo.name, codec=codec, density=GaussianConfig())
        return report_fit(root_of(zoo), "g", config=config)

    weights_ND = batchnorm_networks[1]
    bare = write_batchnorm("bare", weights_ND, batchnorm=None, split=BATCHNORM_SPLIT)
    assert say(LOSSY, bare) is None
    assert "no report on what the codec of g loses" in caplog.text
    assert "no column `batchnorm`" in caplog.text
    shutil.rmtree(root_of(zoo) / "runs")
    assert say(EXACT, zoo) is None
    shutil.rmtree(root_of(zoo) / "runs")
    assert say(LOSSY, zoo) == Reconstruction.load(folder_of(zoo))


# With BatchNorm


def with_recalibrated(zoo, weights_ND) -> np.ndarray:
    data, state = zoo.load_data(), zoo.layout.unflatten(torch.from_numpy(weights_ND))
    return recalibrate(zoo.build_network(), state, data=data, num_images=300, batch=125)


def accuracies(zoo, state) -> np.ndarray:
    data = zoo.load_data()
    return score_networks(zoo.build_network(), state, data=data, part=data.test).accuracy_N


def test_running_statistics_are_the_originals_own_or_re_estimated(batchnorm_zoo):
    zoo = batchnorm_zoo
    codec = fit(zoo, PcaConfig(components=4))
    found = report(zoo, images=300)
    test = found.sets[0]
    weights_ND = zoo.read(zoo.rows("test", "last"))
    codes = codec.encode(torch.from_numpy(weights_ND), zoo.layout)
    decoded_ND = codec.decode(codes, zoo.layout).numpy()
    own_ND = decoded_ND.copy()
    for entry in zoo.layout.entries:
        if entry.role == "buffer":
            own_ND[:, entry.offset : entry.stop] = weights_ND[:, entry.offset : entry.stop]
    expected = {
        "original": accuracies(zoo, zoo.layout.unflatten(torch.from_numpy(weights_ND))),
        "original_recalibrated": accuracies(zoo, with_recalibrated(zoo, weights_ND)),
        "reconstructed": accuracies(zoo, with_recalibrated(zoo, decoded_ND)),
        "reconstructed_own": accuracies(zoo, zoo.layout.unflatten(torch.from_numpy(own_ND))),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(test.networks[name], values, atol=1e-12)
    assert len({tuple(values) for values in expected.values()}) == 4  # all of them differ
    assert not any("running" in tensor["name"] for tensor in found.tensors)
    assert "re-estimated for each reconstruction" in found.headline[0]
    (row, _) = found.statistics_table
    assert row[0] == "test networks" and row[2].startswith(
        f"{100 * expected['original'].mean():.2f}"
    )
    page = read_page(folder_of(zoo) / "report.html")
    assert "on 300 training images" in page and row[4].replace("+-", "&plusmn;") in page


def test_statistics_that_the_codec_covers_are_its_own(batchnorm_zoo):
    zoo = batchnorm_zoo
    fit(zoo, replace(EXACT, buffers=True))
    found = report(zoo, images=300)
    test, layers = found.sets[0], batchnorm_layers(zoo.build_network())
    assert sum("running" in tensor["name"] for tensor in found.tensors) == 2 * len(layers)
    assert test.networks["reconstructed_own"] == test.networks["original"]
    assert test.networks["reconstructed"] == test.networks["original_recalibrated"]
    assert test.networks["reconstructed"] != test.networks["original"]


# Codecs of tokens


def small_sane(**tokens) -> SaneConfig:
    backbone = TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=4)
    compute = SaneComputeConfig(device="cpu", threads=1)
    training = SaneLoopConfig(steps=2, batch_size=4, compute=compute)
    fixed = {"window": 16, "halo": 2, "contrast": 0.0}
    return SaneConfig(SaneTokensConfig(**tokens), backbone, training=training, **fixed)


def test_a_codec_of_tokens_is_reported_on_alike(batchnorm_zoo):
    zoo = batchnorm_zoo
    codec = fit(zoo, small_sane(norms=False))
    found = report(zoo, images=300)
    weights_ND = zoo.read(zoo.rows("test", "last"))
    codes = codec.encode(torch.from_numpy(weights_ND), zoo.layout)
    decoded_ND = codec.decode(codes, zoo.layout).numpy()
    test, whole = found.sets[0], round_trip_error(codec, [(zoo, zoo.rows("test", "last"))])
    assert test.summary["relative"] == pytest.approx(whole["relative"], rel=1e-4)
    norms = [entry.name for entry in zoo.layout.entries if entry.role == "norm"]
    covered = {tensor["name"]: tensor["covered"] for tensor in found.tensors}
    assert norms and [name for name, is_covered in covered.items() if not is_covered] == norms
    assert f"{len(norms)} tensors are not covered" in found.headline[1]
    assert found.facts["numbers that the codec covers"] == whole["covered"]
    expected = accuracies(zoo, with_recalibrated(zoo, decoded_ND))
    np.testing.assert_allclose(test.networks["reconstructed"], expected, atol=1e-12)


def test_reconstructed_variances_do_not_reach_the_behavioural_loss(batchnorm_zoo):
    """They may be negative; the loss runs networks with the originals' statistics."""
    behaviour = BehaviourConfig(weight=1.0, images=5, networks=4)
    zoo, config = batchnorm_zoo, small_sane(buffers=True)
    sources = [(zoo, zoo.rows("train"))]
    geometry = Geometry.of(zoo.layout, TokenSettings(12, buffers=True))
    scaling = TokenScaling.fit(sources, geometry, kind="per_layer")
    sampler = WindowSampler(
        sources, [geometry], scalings=[scaling], window=62, views=config.views, places=True
    )
    batch = sampler.batch(0, 4, start=0, stop=4)
    compared = Behaviour(behaviour, sources, scalings=[scaling], seed=0, device=torch.device("cpu"))
    given = {
        "places_BWC": batch.places_VBWC[0],
        "layer_BW": batch.positions_BW3[..., 1],
        "source_B": batch.source_B,
        "row_B": batch.row_B,
    }
    variance = next(e for e in zoo.layout.entries if e.name.endswith("running_var"))
    places_BWC = given["places_BWC"]
    is_variance = (places_BWC >= variance.offset) & (places_BWC < variance.stop)
    assert is_variance.any()
    made = torch.where(is_variance, -1e3, batch.tokens_VBWC[0])
    assert compared.loss(made, **given).item() == pytest.approx(0, abs=1e-6)


def test_each_architecture_of_a_codec_of_several_can_be_reported_on(zoo, make_zoo):
    other = make_zoo(20, (64, 5, 4, 10), name="other")
    codec = fit(zoo, small_sane(size=20), other.name)
    found = report(zoo, zoo=other.name)
    assert (found.name, found.facts["zoo"]) == ("g-reconstruction-other", "other")
    rows = other.rows("test", "last")
    codes = codec.encode(torch.from_numpy(other.read(rows)), other.layout)
    decoded_ND = codec.decode(codes, other.layout).numpy()
    assert [one.n for one in found.sets] == [4, 4] and found.facts[
        "numbers of a code"
    ] == codes.shape.size
    rmse = np.sqrt(((decoded_ND - other.read(rows)).astype(np.float64) ** 2).mean())
    assert found.sets[0].summary["rmse"] == pytest.approx(rmse)
    assert codes.shape.size != codec.shape.size and len(found.tensors) == 6


def test_what_a_codec_draws_is_told_beside_the_networks_own(zoo):
    config = FunctionsConfig(inputs=200, components=12, functions=16)
    codec = fit(zoo, config)
    found = report(zoo)
    test = found.sets[0]
    weights = torch.from_numpy(zoo.read(zoo.rows("test", "last")))
    codes = codec.encode(weights, zoo.layout)
    drawn = codec.draw(codes, zoo.layout, seed=0)
    own = codec.decode_beside(codes, zoo.layout, weights_ND=weights)
    for measure, rows in (("reconstructed", drawn), ("reconstructed_beside", own)):
        wanted = [
            (logits.argmax(1) == labels).double().mean().item()
            for logits, labels in (logits_of(zoo, row_D) for row_D in rows.numpy())
        ]
        assert test.networks[measure] == pytest.approx(wanted, abs=1e-6)
    assert np.mean(test.networks["agreement_beside"]) > np.mean(test.networks["agreement"])
    assert "draws anew what its codes leave out" in found.headline[0]
    arms = {key: said for key, said in found.facts.items() if key.startswith("null arm")}
    mixed = codes.values.clone()
    mixed[:, :8] = codes.values[:, :8].roll(-1, 0)
    rows = codec.draw(replace(codes, values=mixed), zoo.layout, seed=0)
    wanted = 100 * accuracies(zoo, zoo.layout.unflatten(rows))
    said = f"{wanted.mean():.2f} +- {wanted.std(ddof=1):.2f} % (n = 25)"
    assert arms["null arm, first layer of another: test accuracy"] == said
    assert len(arms) == 4


def test_the_share_of_coded_functions_that_no_weights_give_is_told(make_zoo):
    zoo = make_zoo(count=12, widths=(64, 6, 5, 10))
    codec = fit(zoo, FunctionsConfig(inputs=60, functions=12, components=8))
    found, parts, first = report(zoo), [], 0
    for rows in choose_networks(zoo, ReconstructionConfig()).values():
        codes = codec.encode(torch.from_numpy(zoo.read(rows)), zoo.layout)
        codec.draw(codes, zoo.layout, seed=0, first=first, told=parts.append)
        first += len(rows)
    share = 100 * torch.cat(parts).double()
    said = f"{share.mean():.3g} %, at most {share.max():.3g} % (n = {len(share)})"
    assert share.shape[1] == 1 and share.min() > 0.1
    assert found.facts["coded functions that no weights give, layer 2"] == said
