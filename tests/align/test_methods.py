"""Whole zoos of other architectures, aligned by every method and to references of other zoos."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.groups import permute
from dwf.align.report import read_report
from dwf.align.stage import align_zoo
from dwf.align.symmetry import symmetry_of
from dwf.errors import ConfigError, RunConflict, ShapeMismatch
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig, ViTConfig
from dwf.networks.functional import run_networks
from dwf.zoo.shard import shard_name
from tests.align.test_stage import NO_BARRIER, write_zoo

OTHERS = {
    "cnn": (CNNConfig((4, 6), hidden=(10,)), (1, 28, 28)),
    "resnet": (CifarResNetConfig(8, 4), (3, 16, 16)),
    "vit": (ViTConfig(image=8, patch=4, width=12, depth=2, heads=3), (3, 8, 8)),
}


@pytest.mark.parametrize("method", ["git_rebasin", "transfusion"])
@pytest.mark.parametrize("kind", OTHERS)
def test_planted_orders_of_other_architectures_are_undone(tmp_path, kind, method):
    architecture, shape = OTHERS[kind]
    zoo = write_zoo(tmp_path, 1, per_shard=6, architecture=architecture, shape=shape)
    aligned = align_zoo(AlignConfig("zoo", method=method, **NO_BARRIER), tmp_path, name="aligned")
    spread = [
        np.linalg.norm(z.read() - z.read(np.array([2])), axis=1).mean() for z in (zoo, aligned)
    ]
    assert spread[1] < 0.4 * spread[0]
    network = zoo.build_network().double()
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    rows = [torch.from_numpy(z.read()).double() for z in (zoo, aligned)]
    before, after = (run_networks(network, zoo.layout.unflatten(w), inputs=inputs) for w in rows)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert read_report(aligned)["symmetry_deviation_below"] <= 1e-9
    with h5py.File(aligned.path / "permutations.h5") as file:
        kinds = [file[f"group_{g}"].attrs["kind"] for g in range(len(file) - 1)]
        assert ("heads" in kinds) == (kind == "vit")
        orders = [torch.from_numpy(file[f"group_{g}"][()]).long() for g in range(len(kinds))]
        if kind == "vit":
            child = file[f"group_{kinds.index('query_key')}"].attrs
            assert kinds[child["parent"]] == "heads" and child["place"] == 0
            assert json.loads(child["members"])[0]["axis"] == 0
    per_row = [order[zoo.columns["network"]] for order in orders]
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=shape)
    expected = permute(torch.from_numpy(zoo.read()), zoo.layout, groups=groups, orders=per_row)
    assert np.array_equal(expected.numpy(), aligned.read())


@pytest.mark.parametrize(
    "method", ["activations", "norm_sort", "activation_sort", "optimal_transport"]
)
@pytest.mark.parametrize("reference", ["network", "iterated_mean"])
def test_other_methods_align_too_and_keep_the_function(tmp_path, method, reference):
    zoo = write_zoo(tmp_path, 1, per_shard=6)
    few = {"max_rounds": 2} if reference == "iterated_mean" else {}
    config = AlignConfig("zoo", method=method, reference=reference, **few, **NO_BARRIER)
    aligned = align_zoo(config, tmp_path, name="aligned")
    inputs = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    before, after = (
        run_networks(
            zoo.build_network(), zoo.layout.unflatten(torch.from_numpy(z.read())), inputs=inputs
        )
        for z in (zoo, aligned)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    report = read_report(aligned)["l2_to_reference"]
    assert report["after"] < report["before"]
    assert aligned.facts.aligned.method == method


def test_reference_of_another_zoo(tmp_path):
    zoo = write_zoo(tmp_path)
    other = write_zoo(tmp_path, name="other", per_shard=4)
    config = AlignConfig("other", reference_zoo="zoo", reference_network=4, **NO_BARRIER)
    aligned = align_zoo(config, tmp_path, name="aligned")
    same = align_zoo(AlignConfig("zoo", reference_network=4, **NO_BARRIER), tmp_path, name="same")
    rows = other.rows(epoch=2)
    expected = zoo.read(zoo.rows(epoch=2)[4:5])
    distance = np.linalg.norm(aligned.read(rows) - expected, axis=1)
    assert (distance < 0.3 * np.linalg.norm(other.read(rows) - expected, axis=1).max()).all()
    assert aligned.facts.aligned.reference_zoo == "zoo"
    assert aligned.facts.aligned.reference_fingerprint == zoo.fingerprint
    assert "reference_zoo" not in same.facts.to_json()["provenance"]
    wide = write_zoo(tmp_path, name="wide", architecture=MLPConfig((64, 20, 10)))
    told = rf"reference_zoo = 'wide' .*{wide.layout.digest}.*1,510.*{zoo.layout.digest}.*1,210"
    with pytest.raises(ShapeMismatch, match=told + r".*\[16, 64\] and \[20, 64\]"):
        align_zoo(AlignConfig("zoo", reference_zoo="wide"), tmp_path, name="refused")
    assert not (tmp_path / "zoos" / "refused").exists()


def test_signs_of_tanh_units_are_aligned_and_settings_without_effect_refused(tmp_path):
    zoo = write_zoo(tmp_path, architecture=MLPConfig((64, 16, 10), "tanh"))
    aligned = align_zoo(AlignConfig("zoo", signs=True, **NO_BARRIER), tmp_path, name="aligned")
    inputs = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    before, after = (
        run_networks(
            zoo.build_network(), zoo.layout.unflatten(torch.from_numpy(z.read())), inputs=inputs
        )
        for z in (zoo, aligned)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert aligned.facts.aligned.signs
    with pytest.raises(ValueError, match="signs = true: no effect, as method = norm_sort"):
        AlignConfig("zoo", signs=True, method="norm_sort")
    write_zoo(tmp_path, name="relu")
    with pytest.raises(ConfigError, match="no units whose sign can be flipped"):
        align_zoo(AlignConfig("relu", signs=True), tmp_path, name="other")


def test_another_reference_under_an_aligned_zoo_is_refused(tmp_path):
    write_zoo(tmp_path)
    write_zoo(tmp_path, name="other", per_shard=4)
    config = AlignConfig("zoo", reference_zoo="other", **NO_BARRIER)
    aligned = align_zoo(config, tmp_path, name="aligned")
    shutil.rmtree(tmp_path / "zoos" / "other")
    write_zoo(tmp_path, name="other", per_shard=5)
    (aligned.path / shard_name(1, 4)).unlink()
    with pytest.raises(RunConflict, match=r"a reference of a zoo other of fingerprint .* now has"):
        align_zoo(config, tmp_path, name="aligned")


@pytest.mark.parametrize("reference", ["network", "iterated_mean"])
def test_networks_without_hidden_units_stay_as_they_are(tmp_path, reference):
    zoo = write_zoo(tmp_path, 1, per_shard=6, architecture=MLPConfig((64, 10)))
    aligned = align_zoo(
        AlignConfig("zoo", reference=reference, num_pairs=3), tmp_path, name="aligned"
    )
    assert np.array_equal(aligned.read(), zoo.read())
    with h5py.File(aligned.path / "permutations.h5") as file:
        assert list(file) == ["network"]


def test_a_zoo_of_one_training_network_is_its_own_reference(tmp_path):
    zoo = write_zoo(tmp_path, 1, per_shard=2)  # the first is held out
    aligned = align_zoo(AlignConfig("zoo", reference="iterated_mean"), tmp_path, name="aligned")
    training = zoo.rows(split="train")
    assert np.array_equal(aligned.read(training), zoo.read(training))
    assert read_report(aligned)["pairs"] == 1


def test_signs_within_heads_alone_are_refused(tmp_path):
    architecture, shape = OTHERS["vit"]
    write_zoo(tmp_path, 1, per_shard=2, architecture=architecture, shape=shape)
    with pytest.raises(ConfigError, match="no units whose sign can be flipped"):
        align_zoo(AlignConfig("zoo", signs=True), tmp_path, name="aligned")
