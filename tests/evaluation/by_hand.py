"""Distances between networks as reports have them, found one pair at a time."""

import numpy as np
import torch

from dwf.align.canonical import balance
from dwf.align.matching.matcher import match_networks
from dwf.align.symmetry import permute, symmetry_of
from dwf.datasets.dataset import Dataset
from dwf.zoo.store import Zoo


def behaviour_by_hand(zoo: Zoo, weights_ND: np.ndarray) -> np.ndarray:
    """Return what networks answer to all validation images, centred and of norm 1, one by one."""
    data, network, found = zoo.load_data(), zoo.build_network(), []
    images_MX = _validation(data)
    for row_D in weights_ND:
        network.load_state_dict(zoo.layout.unflatten(torch.from_numpy(row_D.copy())))
        with torch.no_grad():
            logits_MC = network(images_MX).double().numpy()
        centred_F = (logits_MC - logits_MC.mean(1, keepdims=True)).ravel()
        found.append(centred_F / np.linalg.norm(centred_F))
    return np.array(found)


def matched_distances(
    zoo: Zoo, weights_SD: np.ndarray, training_ND: np.ndarray, *, leave_one_out: bool = False
) -> np.ndarray:
    """Return the smaller of the distances to the nearest by weights and the most alike, [S]."""
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    answers = [behaviour_by_hand(zoo, each) for each in (weights_SD, training_ND)]
    found = []
    for s, row_D in enumerate(weights_SD):
        apart = [
            np.linalg.norm(a.astype(np.float64) - b, axis=1)
            for a, b in ((training_ND, row_D), (answers[1], answers[0][s]))
        ]
        if leave_one_out:
            for each_N in apart:
                each_N[s] = np.inf
        partners = {int(each_N.argmin()) for each_N in apart}
        found.append(min(_apart(row_D, training_ND[t], zoo, groups) for t in partners))
    return np.array(found)


def _apart(row_D: np.ndarray, other_D: np.ndarray, zoo: Zoo, groups) -> float:
    layout = zoo.layout
    pair = [torch.from_numpy(each[None].copy()) for each in (row_D, other_D)]
    mine_1D, theirs_1D = (balance(each, layout, groups=groups) for each in pair)
    orders = match_networks(mine_1D, theirs_1D[0], layout=layout, groups=groups)
    matched_1D = permute(mine_1D, layout, groups=groups, orders=orders)
    return float(torch.linalg.vector_norm((matched_1D - theirs_1D).double()))


def _validation(data: Dataset) -> torch.Tensor:
    return data.prepare(data.val.batch(torch.arange(len(data.val)))[0])
