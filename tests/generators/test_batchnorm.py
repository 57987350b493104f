"""Running statistics of networks with BatchNorm that a generator draws."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dwf.codecs.config import FlatConfig
from dwf.errors import ConfigError, WorkFailed
from dwf.generators.batchnorm import has_negative_variance
from dwf.generators.config import SampleConfig
from dwf.generators.examiner import Examiner
from dwf.generators.round_trip import round_trip_error
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import score_networks
from dwf.zoo.layout import Layout


def split_off_buffers(layout: Layout, rows_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (what is learnt, running statistics)."""
    is_buffer_D = np.zeros(layout.size, bool)
    for entry in layout.entries:
        is_buffer_D[entry.offset : entry.stop] = entry.role == "buffer"
    return rows_ND[:, ~is_buffer_D], rows_ND[:, is_buffer_D]


def test_samples_say_where_their_statistics_come_from(convolutional, tmp_path, gaussian_on_weights):
    layout = convolutional.layout
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    decoded = sample_networks(SampleConfig("fitted", count=3), tmp_path, name="decoded")
    assert set(decoded.columns["batchnorm"]) == {"template"}
    assert decoded.facts.input_shape == (1, 8, 8)
    learnt_NK, statistics_NB = split_off_buffers(layout, decoded.read())
    training_NB = split_off_buffers(layout, convolutional.read(convolutional.rows("train")))[1]
    np.testing.assert_allclose(statistics_NB, training_NB.mean(0)[None].repeat(3, 0), rtol=1e-5)
    config = SampleConfig("fitted", count=3, batchnorm="recalibrated", batchnorm_images=200)
    own = sample_networks(config, tmp_path, name="own")
    assert set(own.columns["batchnorm"]) == {"recalibrated"}
    assert own.facts.sampled.batchnorm_images == 200
    learnt_too_NK, own_NB = split_off_buffers(layout, own.read())
    np.testing.assert_array_equal(learnt_too_NK, learnt_NK)
    assert not np.allclose(own_NB[0], own_NB[1], rtol=0.1)


def test_statistics_are_those_of_all_training_images(convolutional, tmp_path, gaussian_on_weights):
    """Of the first layer they are linear in the images: known exactly, whatever the batches."""
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    config = SampleConfig("fitted", count=2, batchnorm="recalibrated", batchnorm_images=10**6)
    zoo = sample_networks(config, tmp_path, name="drawn")
    state, data = zoo.layout.unflatten(torch.from_numpy(zoo.read())), zoo.load_data()
    images, _ = data.train.batch(torch.arange(len(data.train)))
    for n in range(2):
        weight, bias = state["convs.0.weight"][n], state["convs.0.bias"][n]
        maps = torch.nn.functional.conv2d(data.prepare(images), weight, bias)
        found = state["norms.0.running_mean"][n]
        torch.testing.assert_close(found, maps.mean((0, 2, 3)), rtol=2e-3, atol=2e-3)


def test_statistics_can_be_generated(convolutional, tmp_path, gaussian_on_weights):
    with_buffers = dataclasses.replace(gaussian_on_weights, codec=FlatConfig(buffers=True))
    fit_generator(with_buffers, tmp_path, name="fitted")
    drawn = sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert set(drawn.columns["batchnorm"]) == {"generated"}
    statistics_NB = split_off_buffers(drawn.layout, drawn.read())[1]
    assert not np.allclose(statistics_NB[0], statistics_NB[1])


@pytest.mark.parametrize("convolutional", [3.0], indirect=True)
def test_generated_variances_below_zero_are_an_error(convolutional, tmp_path, gaussian_on_weights):
    with_buffers = dataclasses.replace(gaussian_on_weights, codec=FlatConfig(buffers=True))
    generator = fit_generator(with_buffers, tmp_path, name="fitted")
    weights_ND = generator.sample(8, seed=0).numpy()
    parts = [e for e in generator.codec.layout.entries if e.name.endswith("running_var")]
    below_N = np.any([(weights_ND[:, e.offset : e.stop] < 0).any(1) for e in parts], 0)
    said = rf"{below_N.sum()} of 8 .*below zero \(first: sample {below_N.argmax()}\).*recalibrated"
    with pytest.raises(WorkFailed, match=said):
        sample_networks(SampleConfig("fitted", count=8), tmp_path, name="drawn")
    config = SampleConfig("fitted", count=8, batchnorm="recalibrated", batchnorm_images=50)
    own = sample_networks(config, tmp_path, name="own").read()
    assert all((own[:, e.offset : e.stop] >= 0).all() for e in parts)


@pytest.mark.parametrize("convolutional", [3.0], indirect=True)
def test_variances_below_zero_leave_no_trace_in_scores_of_re_estimated_networks(
    convolutional, tmp_path, gaussian_on_weights
):
    with_buffers = dataclasses.replace(gaussian_on_weights, codec=FlatConfig(buffers=True))
    generator = fit_generator(with_buffers, tmp_path, name="fitted")
    drawn_ND, layout = generator.sample(8, seed=0), generator.layout
    assert has_negative_variance(layout, drawn_ND).any()
    examiner = Examiner(generator.subject, layout, batchnorm_images=50, wanted_by="this needs")
    state, network, data = layout.unflatten(drawn_ND), examiner.network, convolutional.load_data()
    own = recalibrate(network, state, data=data, num_images=50)
    accuracy_N = score_networks(network, own, data=data, part=data.val).accuracy_N
    found = examiner.summary(drawn_ND)
    assert found["sample_accuracy"] == pytest.approx(accuracy_N.mean())
    assert found["sample_accuracy_std"] == pytest.approx(accuracy_N.std())
    lost_ND = drawn_ND.clone()
    lost_ND[0, 0] = torch.nan
    accuracy_N[0] = 0.0
    assert examiner.summary(lost_ND)["sample_accuracy"] == pytest.approx(accuracy_N.mean())


def test_networks_without_batchnorm_say_so(make_zoo, tmp_path, gaussian_on_weights):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    drawn = sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert set(drawn.columns["batchnorm"]) == {"none"}
    assert "batchnorm_images" not in drawn.facts.to_json()["provenance"]
    with pytest.raises(ConfigError, match=r"fitted have no running statistics.*--batchnorm"):
        config = SampleConfig("fitted", batchnorm="recalibrated")
        sample_networks(config, tmp_path, name="other")


def test_the_round_trip_counts_what_the_codec_covers(convolutional, tmp_path, flow_on_pca):
    generator = fit_generator(flow_on_pca, tmp_path, name="fitted")
    codec, layout = generator.codec, convolutional.layout
    rows = convolutional.rows("val")
    error = round_trip_error(codec, [(convolutional, rows)])
    weights_ND = torch.from_numpy(convolutional.read(rows))
    decoded_ND = codec.decode(codec.encode(weights_ND, layout), layout).numpy()
    kept_NK, dropped_NB = split_off_buffers(layout, weights_ND.numpy())
    again_NK, template_NB = split_off_buffers(layout, decoded_ND)
    assert error["rmse"] == pytest.approx(np.sqrt(((again_NK - kept_NK) ** 2).mean()))
    assert (error["covered"], error["numbers"]) == (kept_NK.shape[1], layout.size)
    assert np.abs(template_NB - dropped_NB).max() > 0.1
    summary = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    assert summary["codec"]["round_trip"] == error
