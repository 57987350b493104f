"""Nearest rows against brute force in any blocks; behaviour against shifts and scales of logits."""

import numpy as np
import pytest
import torch

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.evaluation.measure import behaviour as module
from dwf.evaluation.measure.behaviour import behaviour, behaviour_images
from dwf.evaluation.measure.neighbours import nearest_rows


def rows(num, seed, size=9):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((num, size))).float()


@pytest.mark.parametrize("sizes", [(3, 5), (1024, 8192)])
@pytest.mark.parametrize("signs", [False, True])
def test_nearest_rows_equal_brute_force_in_any_blocks(monkeypatch, sizes, signs):
    monkeypatch.setattr("dwf.evaluation.measure.neighbours._ROWS", sizes[0])
    monkeypatch.setattr("dwf.evaluation.measure.neighbours._OTHERS", sizes[1])
    mine_SF, theirs_TF = rows(11, 0), rows(23, 1)
    own_S, of_T = torch.arange(11) % 4, torch.arange(23) % 4
    theirs_TF[5], mine_SF[2] = torch.nan, -3 * theirs_TF[1]
    apart = [
        torch.linalg.vector_norm(mine_SF[:, None].double() - s * theirs_TF, dim=2) for s in (1, -1)
    ]
    all_ST = apart[0].minimum(apart[1]) if signs else apart[0]
    all_ST[:, 5] = torch.inf
    found_S, position_S = nearest_rows(mine_SF, theirs_TF, signs=signs)
    assert torch.equal(position_S, all_ST.argmin(1))
    np.testing.assert_allclose(found_S, all_ST.amin(1), rtol=1e-12)
    all_ST[own_S[:, None] == of_T] = torch.inf
    found_S, position_S = nearest_rows(mine_SF, theirs_TF, own_S=own_S, of_T=of_T, signs=signs)
    assert torch.equal(position_S, all_ST.argmin(1))
    np.testing.assert_allclose(found_S, all_ST.amin(1), rtol=1e-12)


def test_a_copy_is_at_zero_and_what_is_not_finite_is_nowhere():
    theirs_TF = rows(7, 0)
    mine_SF = torch.cat([theirs_TF[3:5], torch.full((1, 9), torch.inf)])
    found_S, position_S = nearest_rows(mine_SF, theirs_TF)
    assert found_S[:2].tolist() == [0, 0] and position_S[:2].tolist() == [3, 4]
    assert found_S[2].isnan() or found_S[2].isinf()
    same = torch.zeros(7, dtype=torch.int64)
    alone_S, _ = nearest_rows(mine_SF, theirs_TF, own_S=same[:3], of_T=same)
    assert alone_S[:2].isinf().all(), "nobody counts"


def test_behaviour_is_blind_to_a_shift_of_each_image_and_to_one_scale():
    stream = np.random.default_rng(0)
    logits_NMC = torch.from_numpy(stream.standard_normal((4, 6, 5)))
    shift_NM1 = torch.from_numpy(stream.standard_normal((4, 6, 1)))
    found_NF = behaviour(logits_NMC)
    np.testing.assert_allclose(behaviour(3 * logits_NMC + shift_NM1), found_NF, atol=1e-7)
    exact_NMC = logits_NMC.numpy() - logits_NMC.numpy().mean(2, keepdims=True)
    exact_NF = exact_NMC.reshape(4, -1) / np.sqrt((exact_NMC**2).sum((1, 2)))[:, None]
    np.testing.assert_allclose(found_NF, exact_NF, atol=1e-7)
    other_NF = behaviour(logits_NMC + torch.from_numpy(stream.standard_normal((1, 1, 5))))
    assert (found_NF - other_NF).norm(dim=1).min() > 0.1, "a class that is preferred is behaviour"


def test_networks_that_tell_no_classes_apart_have_none_and_broken_ones_are_nan():
    logits_NMC = torch.full((3, 6, 5), 0.1)
    logits_NMC[1, 2, 3], logits_NMC[2, 0, 0] = torch.inf, 1
    found_NF = behaviour(logits_NMC)
    assert (found_NF[0] == 0).all() and found_NF[1].isnan().any()
    assert found_NF[2].norm() == pytest.approx(1)


def test_images_are_of_validation_and_their_number_is_bounded(monkeypatch):
    data = load_dataset(DataConfig(kind="digits"))
    images_MX = behaviour_images(data, num_networks=30)
    val_MX = data.prepare(data.val.batch(torch.arange(len(data.val)))[0])
    assert torch.equal(images_MX, val_MX)
    monkeypatch.setattr(module, "_BYTES", 4 * 10 * 30 * 50)
    fewer_MX = behaviour_images(data, num_networks=30)
    assert len(fewer_MX) == 50 and torch.equal(fewer_MX, behaviour_images(data, num_networks=30))
    assert len(behaviour_images(data, num_networks=10**9)) == module.FEWEST_IMAGES
    monkeypatch.undo()
    none = load_dataset(DataConfig(kind="digits", validation=0))
    assert len(behaviour_images(none, num_networks=30)) == module.MOST_IMAGES
