"""Measure sets of networks: every set is scored and held against the same training networks.

Shape suffixes: N training networks, S networks of a set, B of one block of it, D numbers of one
network, M images of the split, C axes of the map.
"""

from dataclasses import dataclass

import numpy as np
import torch

from dwf.align.canonical import balance
from dwf.align.matching import match_networks
from dwf.align.symmetry import Group, permute, symmetry_of
from dwf.codecs.moments import Moments
from dwf.datasets.dataset import Dataset, Part
from dwf.errors import ConfigError, DataUnavailable, ShapeMismatch, TooFewNetworks
from dwf.evaluation.novelty import (
    Blocks,
    Limits,
    Rows,
    moments,
    nearest,
    overlap,
    principal_axes,
)
from dwf.networks.functional import Scores, score_networks
from dwf.zoo.store import Zoo

MIN_TRAINING = 4
"""Fewer training networks have no spread of nearest distances to speak of."""
MAP_NETWORKS = 1000
"""The map's axes come from at most so many training networks: its cost grows with the cube."""


@dataclass(frozen=True)
class Measured:
    """A set of networks, measured: one number each, and nothing left out."""

    accuracy_S: np.ndarray
    """Share of the split's images, float64."""
    val_accuracy_S: np.ndarray
    """Share of the validation images, float64."""
    loss_S: np.ndarray
    """Cross-entropy in nats, float64."""
    distance_S: np.ndarray
    """To the nearest training network, float64."""
    nearest_S: np.ndarray
    """Position of that network among the training networks, int64."""
    overlap_S: np.ndarray
    """Of wrong answers with that network, float64."""
    highest_overlap_S: np.ndarray
    """Of wrong answers with any training network, float64."""
    map_SC: np.ndarray
    """Place on the first principal axes of the training networks, float64."""
    spread: float
    """Root mean square distance to the set's own mean; NaN for one network."""
    wrong_SM: np.ndarray
    """Which of the split's images each network gets wrong, bool."""


class Yardstick:
    """The training networks of a zoo, measured once; all sets are held against them.

    Args:
        zoo: what generators learn from.
        data: the images of its networks.
        device: where to compute.
        split: the images that are scored, `test` or `val`.

    Raises:
        ConfigError: there are no images of this split.
        TooFewNetworks: the zoo has fewer than four training networks.
        DataUnavailable: the networks do not have the accuracies that the zoo records.
    """

    def __init__(self, zoo: Zoo, data: Dataset, device: str = "cpu", split: str = "test"):
        self.zoo, self.data, self.device, self.split = zoo, data, device, split
        if not len(getattr(data, split)):
            raise ConfigError(
                f"split = {split!r}: {zoo.path} was trained with data.validation = 0, so there are "
                "no such images: give --split test"
            )
        self.network = zoo.build_network().to(device)
        self.training = Rows(zoo, zoo.rows(split="train", epoch="last"))
        if len(self.training) < MIN_TRAINING:
            raise TooFewNetworks(
                f"{zoo.path} has {len(self.training)} training networks, an evaluation needs "
                f"{MIN_TRAINING}: train a larger zoo, or hold out a smaller share"
            )
        gathered = moments(self.training)
        self.mean_D, self.deviation_D = gathered.mean_D, gathered.deviation_D
        first = Rows(zoo, self.training.rows[:MAP_NETWORKS])
        self.axes_CD, self.axes_share_C = principal_axes(first)
        self.groups = self._groups_of_frame()
        self._wrong_NM: np.ndarray | None = None
        self.originals = self.measure_zoo(zoo, self.training.rows, leave_one_out=True)
        self._wrong_NM = self.originals.wrong_SM
        self.limits = Limits.of(
            self.originals.accuracy_S, self.originals.distance_S, self.originals.overlap_S
        )

    def measure_zoo(self, zoo: Zoo, rows: np.ndarray, leave_one_out: bool = False) -> Measured:
        """Measure rows of a zoo, and hold them to the accuracies it records, if it does.

        Args:
            zoo: this zoo, or one of generated networks, which are put into its frame first.
            rows: which of its rows.
            leave_one_out: the rows are the training networks: each is held against the others.

        Raises:
            TooFewNetworks: there are no rows.
            ShapeMismatch: the zoo has another layout.
            DataUnavailable: its networks do not have the accuracies that it records.
            CorruptShard: a row does not match its checksum.
        """
        if not len(rows):
            raise TooFewNetworks(f"{zoo.path} has no networks to score: draw at least one")
        if zoo.layout.digest != self.zoo.layout.digest:
            raise ShapeMismatch(
                f"{zoo.path} has another layout ({zoo.layout.size} weights) than {self.zoo.path} "
                f"({self.zoo.layout.size}): evaluate samples against the zoo that their generator "
                "learnt from"
            )
        blocks: Blocks = Rows(zoo, rows, check=True)
        if zoo is not self.zoo:
            blocks = ((positions_B, self._into_frame(block_BD)) for positions_B, block_BD in blocks)
        measured = self.measure(blocks, leave_one_out)
        self._check_accuracy(zoo, rows, measured.accuracy_S)
        return measured

    def measure(self, blocks: Blocks, leave_one_out: bool = False) -> Measured:
        """Measure a set of networks in one pass over its weights."""
        gathered, parts = Moments(), []
        for positions_B, weights_BD in blocks:
            gathered.add(weights_BD)
            parts.append(self._measure_block(weights_BD, positions_B if leave_one_out else None))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        wrong_SM = columns["wrong_SM"]
        overlap_S, highest_S = overlap(
            wrong_SM,
            wrong_SM if self._wrong_NM is None else self._wrong_NM,
            columns["nearest_S"],
            np.arange(len(wrong_SM)) if leave_one_out else None,
        )
        return Measured(
            **columns, overlap_S=overlap_S, highest_overlap_S=highest_S, spread=gathered.spread
        )

    def _groups_of_frame(self) -> tuple[Group, ...]:
        """What the zoo's alignment permuted and rescaled; nothing where it was not aligned."""
        provenance = self.zoo.facts.get("provenance") or {}
        if "aligned_from" not in provenance:
            return ()
        return symmetry_of(self.network, self.zoo.layout, provenance.get("scale", "none"))

    def _into_frame(self, weights_BD: np.ndarray) -> np.ndarray:
        """Return generated networks in the zoo's frame; what they compute stays.

        A generator to which the order of units means nothing returns them in any order, and a copy
        with its units shuffled must not pass for new. Each network is matched to the mean of the
        training networks; of its two orders the one nearer to a training network counts.
        """
        if not self.groups:
            return weights_BD
        layout = self.zoo.layout
        given_BD = balance(torch.from_numpy(weights_BD), layout, self.groups)
        mean_D = torch.from_numpy(self.mean_D).float()
        orders = match_networks(given_BD, mean_D, layout, self.groups)
        matched_BD = permute(given_BD, layout, self.groups, orders).numpy()
        given_BD = given_BD.numpy()
        before_B, after_B = (
            nearest(each, self.training, None, self.device)[0] for each in (given_BD, matched_BD)
        )
        return np.where((after_B < before_B)[:, None], matched_BD, given_BD)

    def _measure_block(
        self, weights_BD: np.ndarray, own_B: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        val = self._score(weights_BD, self.data.val)
        scores = val if self.split == "val" else self._score(weights_BD, self.data.test)
        distance_B, nearest_B = nearest(weights_BD, self.training, own_B, self.device)
        return {
            "accuracy_S": scores.accuracy_N,
            "val_accuracy_S": val.accuracy_N,
            "loss_S": scores.loss_N,
            "distance_S": distance_B,
            "nearest_S": nearest_B,
            "map_SC": (weights_BD - self.mean_D) @ self.axes_CD.T,
            "wrong_SM": scores.wrong_NM,
        }

    def _score(self, weights_BD: np.ndarray, part: Part) -> Scores:
        state = self.zoo.layout.unflatten(torch.from_numpy(weights_BD).to(self.device))
        return score_networks(
            self.network, state, self.data, part, keep_wrong=True, device=self.device
        )

    def _check_accuracy(self, zoo: Zoo, rows: np.ndarray, accuracy_S: np.ndarray) -> None:
        column = f"{self.split}_accuracy"
        if column not in zoo.columns:
            return
        # A few logits may tie to the last bit, and sums come in another order after alignment.
        allowed = max(2 / len(getattr(self.data, self.split)), 1e-3)
        recorded_S = zoo.columns[column][rows]
        off = np.flatnonzero(~(np.abs(recorded_S - accuracy_S) <= allowed))
        if len(off):
            row, found, recorded = rows[off[0]], accuracy_S[off[0]], recorded_S[off[0]]
            raise DataUnavailable(
                f"{zoo.path}: row {row} has {self.split} accuracy {found:.4f}, the zoo says "
                f"{recorded:.4f} ({len(off)} of {len(rows)} rows differ): the data or "
                "their preparation are not those it was trained on; see `data` in its zoo.json"
            )
