"""How near networks are to training networks in weights, behaviour and units.

Shape suffixes: N training networks, J of them that limits are taken from, T of them whose units are
kept, B networks of a block, D numbers of one network, K of them that are learnt, F numbers of a
network's behaviour, P partners, L layers, M images.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from dwf import preemption
from dwf.align.activation import training_images
from dwf.align.groups import Group
from dwf.align.symmetry import describe, symmetry_of
from dwf.datasets.dataset import Dataset
from dwf.errors import ConfigError
from dwf.evaluation.measure.neighbours import nearest_rows
from dwf.evaluation.measure.novelty import Rows, nearest
from dwf.evaluation.measure.pairs import PairDistance
from dwf.evaluation.measure.units import UnitDistance, UnitReader, layers_of
from dwf.networks.functional import is_stacked
from dwf.randomness import numpy_stream
from dwf.zoo.store import Zoo

LIMIT_NETWORKS = 1000
"""Limits come from at most so many training networks, held against all of them."""
FUNCTION_NETWORKS = 200
"""Principal functions of a layer come from the units of at most so many training networks."""
MOST_UNITS = 2**20
"""Units of a layer, of training networks, that others are held against, at most: their square is
too large otherwise."""
_UNIT_IMAGES, _FILTER_IMAGES = 1000, 250


class Nearness:
    """The training networks, ready to hold others against; see `Novelty` for the measures.

    Args:
        training: the training networks.
        network: their architecture, in evaluation mode.
        data: of the zoo.
        device: where distances of weights are computed.
    """

    def __init__(self, training: Rows, network: nn.Module, *, data: Dataset, device: str):
        zoo, rows = training.zoo, training.rows
        self.training, self.device = training, device
        network_N = zoo.columns["network"][rows].astype(np.int64)
        self.single_run = len(np.unique(network_N)) == 1
        # A network is left out with all its rows; steps of a single run one by one.
        self._own_N = np.arange(len(rows)) if self.single_run else network_N
        self.judged_J = self._some("limits", LIMIT_NETWORKS)
        self.groups, self.left_out = _groups_of(zoo, network)
        count = _UNIT_IMAGES if is_stacked(network) else _FILTER_IMAGES
        self._images_MX = training_images(data, count, seed=0)
        self.layers, others = layers_of(network, self.groups, images_MX=self._images_MX)
        if others:
            self.left_out = describe(others).partition(": ")[2]
        self._apart = PairDistance(training, groups=self.groups)
        self._behaviour_NF = torch.zeros(0)
        widest = max((layer.size for layer in self.layers), default=1)
        self.unit_networks_T = self._some("units", max(1, MOST_UNITS // widest))
        self.reader = self._unit_reader(network)
        held = Rows(zoo, rows[self.unit_networks_T])
        self._units = UnitDistance(
            self.reader,
            (weights_BD for _, weights_BD in held),
            own_T=self._own_N[self.unit_networks_T],
        )

    def _unit_reader(self, network: nn.Module) -> UnitReader:
        zoo, rows = self.training.zoo, self.training.rows
        return UnitReader(
            network,
            zoo.layout,
            layers=self.layers,
            images_MX=self._images_MX,
            some_BD=zoo.read(rows[self._some("principal functions", FUNCTION_NETWORKS)]),
        )

    def _some(self, what: str, most: int) -> np.ndarray:
        """Return positions of so many training networks at most, a random subset, in order."""
        num = len(self.training)
        if num <= most:
            return np.arange(num)
        return np.sort(numpy_stream(0, what).permutation(num)[:most])

    def learn(self, behaviour_NF: np.ndarray) -> dict[str, np.ndarray]:
        """Keep the behaviour of all training networks, and measure some of them, leave one out.

        A training network is held against all that are not the same network at another step.

        Returns:
            As `measure`, of the networks `judged_J`.
        """
        self._behaviour_NF = torch.from_numpy(behaviour_NF)
        parts = []
        for positions_B, weights_BD in Rows(self.training.zoo, self.training.rows[self.judged_J]):
            judged_B = self.judged_J[positions_B]
            own_B = self._own_N[judged_B]
            parts.append(self.measure(weights_BD, behaviour_NF[judged_B], own_B=own_B))
            if preemption.is_asked():
                preemption.stop()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def measure(
        self, weights_BD: np.ndarray, behaviour_BF: np.ndarray, *, own_B: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Measure how near networks are to the training networks.

        Args:
            weights_BD: float32, whole rows, in the zoo's frame.
            behaviour_BF: their behaviour, float32.
            own_B: labels of training networks that do not count for each, int64.

        Returns:
            `distance_S`, `behaviour_S`, `units_SL` (see `Novelty`), and `nearest_S`, the position
            of the training network at that distance, int64.
        """
        learnt_BK = self.training.zoo.layout.learnt(weights_BD)
        _, nearest_B = nearest(
            learnt_BK, self.training, own_B=own_B, labels_N=self._own_N, device=self.device
        )
        own_S = of_T = None
        if own_B is not None:
            own_S, of_T = torch.from_numpy(own_B), torch.from_numpy(self._own_N)
        mine_BF = torch.from_numpy(behaviour_BF)
        unlike_B, alike_B = nearest_rows(mine_BF, self._behaviour_NF, own_S=own_S, of_T=of_T)
        partners_BP = np.stack([nearest_B, alike_B.numpy()], 1)
        apart_BP = self._apart(weights_BD, partners_BP)
        row_B, closer_B = np.arange(len(apart_BP)), apart_BP.argmin(1)
        return {
            "distance_S": apart_BP[row_B, closer_B],
            "nearest_S": partners_BP[row_B, closer_B],
            "behaviour_S": unlike_B.numpy(),
            "units_SL": self._units(weights_BD, own_B),
        }


def _groups_of(zoo: Zoo, network: nn.Module) -> tuple[Sequence[Group], str]:
    """Return the groups that networks are matched by, and in words why there are none."""
    try:
        groups = symmetry_of(network, zoo.layout, input_shape=zoo.input_shape)
    except ConfigError:
        return (), "all units, as this architecture cannot be traced"
    # Within a head, signs are left as they are.
    signs = [group.signs and group.parent is None for group in groups]
    return tuple(replace(one, signs=flip) for one, flip in zip(groups, signs, strict=True)), ""
