"""Score networks: with which running statistics BatchNorm works, and how the cores are shared.

Shape suffixes: B networks of a block, D numbers of one network, M images of the split, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from dwf.datasets.dataset import Dataset, Part
from dwf.errors import ConfigError, CorruptShard, DataUnavailable
from dwf.evaluation.config import BatchNormConfig, Strategy
from dwf.evaluation.measure.behaviour import behaviour
from dwf.evaluation.measure.ensembles import SumInOrder
from dwf.networks.batchnorm import fresh_statistics, recalibrate
from dwf.networks.functional import Scores, batchnorm_buffers, network_logits, score_networks
from dwf.networks.side_by_side import computed_together, side_by_side
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo

Source = Literal["own"] | Strategy
"""Where statistics come from: `own` are those of the networks' rows, as they lie."""
State = dict[str, torch.Tensor]
RECALIBRATION_BATCH = 125
"""Images of a batch when statistics are re-estimated: a third faster on a CPU than 250."""

_LOGIT_BYTES = 64 * 2**20


class Scorer:
    """Scores blocks of networks of one architecture on one dataset.

    On a CPU networks that cannot be computed together are scored side by side.

    Args:
        network: the architecture, in evaluation mode.
        layout: of the networks' rows.
        data: images, prepared as the zoo's recipe says.
        split: the images that are scored, `test` or `val`.
        config: how BatchNorm's statistics are re-estimated.
        template_D: row with the statistics that `reference` stands for.
        device: where to compute.
        workers: networks side by side; default: torch's threads.
        keep_answers: also say which class each network answers to each image.
        compared_MX: prepared images on which the behaviour of networks is taken; None: it is not.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        *,
        data: Dataset,
        split: str,
        config: BatchNormConfig,
        template_D: np.ndarray,
        device: str = "cpu",
        workers: int | None = None,
        keep_answers: bool = False,
        compared_MX: torch.Tensor | None = None,
    ):
        self._compared_MX = compared_MX
        self.num_compared = 0 if compared_MX is None else len(compared_MX)
        self.layout, self.data, self.split, self.config = layout, data, split, config
        self.device, self.network = device, network.to(device)
        self.buffers = tuple(batchnorm_buffers(network))
        self.num_images = min(config.images, len(data.train))
        rows_1D = torch.from_numpy(template_D[None].astype(np.float32))
        self._reference = {name: layout.unflatten(rows_1D)[name] for name in self.buffers}
        self._workers, self._keep_answers = workers, keep_answers

    def score(
        self,
        weights_BD: np.ndarray,
        source: Source = "own",
        *,
        compare: Sequence[Source] = (),
        voting_B: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Score a block of networks.

        Args:
            weights_BD: float32, whole rows.
            source: the statistics they are judged with.
            compare: statistics with which their accuracy on the split is found too.
            voting_B: networks that are members of an ensemble, bool.

        Returns:
            `accuracy_S`, `val_accuracy_S`, `loss_S`, `wrong_SM` (see `accuracy.Measured`), where
            they are kept `answers_SM` (see `functional.Scores`), and for each source in `compare`
            its accuracy_B, float64. Where there are images for it: `behaviour_SF`, see
            `behaviour`. Of the ensemble's members, if any: `votes_MK`, their logits' sum, float64.
        """
        voting_B = np.zeros(len(weights_BD), bool) if voting_B is None else voting_B
        if not self.buffers:
            source, compare = "own", ()
        if computed_together(self.network, self.device):
            return self._score(self.network, weights_BD, source, compare, voting_B)
        votes = SumInOrder()

        def score_one(network: nn.Module, i: int) -> dict[str, np.ndarray]:
            one = slice(i, i + 1)
            found = self._score(network, weights_BD[one], source, compare, voting_B[one])
            votes.add(i, found.pop("votes_MK", None))
            return found

        parts = side_by_side(
            self.network, len(weights_BD), compute=score_one, workers=self._workers
        )
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return found if votes.total is None else found | {"votes_MK": votes.total}

    def accuracy(self, weights_BD: np.ndarray, source: Source = "own") -> np.ndarray:
        """Return the accuracy_B of a block of networks on the split, float64, and nothing else.

        Args:
            weights_BD: float32, whole rows.
            source: the statistics they are judged with.
        """
        source = source if self.buffers else "own"

        def score(network: nn.Module, rows: slice) -> np.ndarray:
            state = self.layout.unflatten(torch.from_numpy(weights_BD[rows]).to(self.device))
            return self._run(network, self._with(network, state, source), self._part).accuracy_N

        return self._of_each(score, len(weights_BD))

    def logits(
        self, weights_BD: np.ndarray, source: Source = "own", *, images_MX: torch.Tensor
    ) -> np.ndarray:
        """Return the logits_BMK of a block of networks on prepared images, float32.

        Args:
            weights_BD: float32, whole rows; few enough that memory holds what they answer.
            source: the statistics they are judged with.
            images_MX: any.
        """
        source, images_MX = source if self.buffers else "own", images_MX.to(self.device)

        def answer(network: nn.Module, rows: slice) -> np.ndarray:
            state = self.layout.unflatten(torch.from_numpy(weights_BD[rows]).to(self.device))
            judged = self._with(network, state, source)
            return network_logits(network, judged, images_MX=images_MX).cpu().numpy()

        return self._of_each(answer, len(weights_BD))

    def _of_each(self, compute: Callable[[nn.Module, slice], np.ndarray], count: int) -> np.ndarray:
        """Return what is computed of networks, at once or of one after the other side by side."""
        if computed_together(self.network, self.device):
            return compute(self.network, slice(None))
        return np.concatenate(
            side_by_side(
                self.network,
                count,
                compute=lambda network, i: compute(network, slice(i, i + 1)),
                workers=self._workers,
            )
        )

    def _score(
        self,
        network: nn.Module,
        weights_BD: np.ndarray,
        source: Source,
        compare: Sequence[Source],
        voting_B: np.ndarray,
    ) -> dict[str, np.ndarray]:
        state = self.layout.unflatten(torch.from_numpy(weights_BD).to(self.device))
        judged = self._with(network, state, source)
        scores = self._run(network, judged, self._part, voting_B)
        val = scores if self.split == "val" else self._run(network, judged, self.data.val)
        found = {
            "accuracy_S": scores.accuracy_N,
            "val_accuracy_S": val.accuracy_N,
            "loss_S": scores.loss_N,
            "wrong_SM": scores.wrong_NM,
        }
        if self._keep_answers:
            found["answers_SM"] = scores.answers_NM
        if self._compared_MX is not None:
            found["behaviour_SF"] = self._behaviour(network, judged, self._compared_MX)
        if scores.votes_MK is not None:
            found["votes_MK"] = scores.votes_MK
        for other in compare:
            if other == source:
                found[other] = scores.accuracy_N
            else:
                changed = self._with(network, state, other)
                found[other] = self._run(network, changed, self._part).accuracy_N
        return found

    def _behaviour(self, network: nn.Module, state: State, images_MX: torch.Tensor) -> np.ndarray:
        """Return behaviour_BF, a few networks at a time: their logits fit 64 MiB."""
        step = max(1, _LOGIT_BYTES // (8 * len(images_MX) * self.data.num_classes))
        images_MX, found = images_MX.to(self.device), []
        for first in range(0, len(next(iter(state.values()))), step):
            some = {name: tensor[first : first + step] for name, tensor in state.items()}
            found.append(
                behaviour(network_logits(network, some, images_MX=images_MX)).cpu().numpy()
            )
        return np.concatenate(found)

    @property
    def _part(self) -> Part:
        return self.data.part(self.split)

    def _run(
        self,
        network: nn.Module,
        state: Mapping[str, torch.Tensor],
        part: Part,
        voting_N: np.ndarray | None = None,
    ) -> Scores:
        return score_networks(
            network,
            state,
            data=self.data,
            part=part,
            keep_wrong=True,
            device=self.device,
            keep_answers=self._keep_answers,
            voting_N=voting_N,
        )

    def _with(self, network: nn.Module, state: State, source: Source) -> State:
        """Return networks with these statistics."""
        if source == "none":
            return fresh_statistics(network, state)
        if source == "reference":
            num = len(next(iter(state.values())))
            given = {name: ref.to(self.device) for name, ref in self._reference.items()}
            return state | {
                name: ref.repeat(num, *[1] * (ref.dim() - 1)) for name, ref in given.items()
            }
        if source == "recalibrated":
            return recalibrate(
                network,
                state,
                data=self.data,
                num_images=self.num_images,
                device=self.device,
                batch=RECALIBRATION_BATCH,
            )
        return state


def refuse_without_statistics(zoo: Zoo, rows: np.ndarray, *, network: nn.Module, own: bool) -> None:
    """See that rows say where their statistics come from: no network is scored with none.

    Args:
        zoo: the zoo.
        rows: which of its rows are to be scored.
        network: its architecture.
        own: whether they must be the networks' own, as those of trained networks are.

    Raises:
        ConfigError: networks with BatchNorm have no statistics, or none of their own.
    """
    buffers = batchnorm_buffers(network)
    if not buffers:
        return
    missing = [name for name in buffers if name not in zoo.layout.by_name]
    if missing:
        raise ConfigError(
            f"{zoo.path}: networks with BatchNorm whose rows have no {missing[0]}: they cannot be "
            "scored without running statistics; make the zoo again with dwf zoo or dwf sample"
        )
    if "batchnorm" not in zoo.columns:
        raise ConfigError(
            f"{zoo.path}: networks with BatchNorm, and no column `batchnorm` that says where their "
            "running statistics come from (trained, template, recalibrated or generated): make the "
            "zoo again with dwf zoo or dwf sample"
        )
    allowed = {"trained", "recalibrated"} | (set() if own else {"template", "generated"})
    column = zoo.columns["batchnorm"][rows]
    off = np.flatnonzero(~np.isin(column, list(allowed)))
    if len(off):
        raise ConfigError(
            f"{zoo.path}: row {rows[off[0]]} has batchnorm = {str(column[off[0]])!r}, expected "
            f"{' or '.join(sorted(allowed))} ({len(off)} of {len(rows)} rows): networks with "
            "BatchNorm are not scored without running statistics"
        )


def refuse_broken_statistics(
    zoo: Zoo, rows_B: np.ndarray, *, weights_BD: np.ndarray, buffers: Sequence[str]
) -> None:
    """See that running statistics are such as networks have once they have seen images.

    Raises:
        CorruptShard: some are not finite, a variance is negative, or all are as in a network that
            was never trained (mean 0, variance 1); names the rows.
    """
    state = zoo.layout.unflatten(weights_BD)
    broken_B, unmeasured_B = np.zeros(len(weights_BD), bool), np.ones(len(weights_BD), bool)
    for name in buffers:
        values_BC, is_variance = state[name], name.endswith("running_var")
        broken_B |= ~np.isfinite(values_BC).all(1) | (is_variance & (values_BC < 0).any(1))
        unmeasured_B &= (values_BC == float(is_variance)).all(1)
    if buffers and (broken_B | unmeasured_B).any():
        bad_B = broken_B | unmeasured_B
        named = ", ".join(str(row) for row in rows_B[bad_B][:8])
        raise CorruptShard(
            f"{zoo.path}: running statistics of BatchNorm are not finite, negative variances, or "
            f"those of a new network, in row {named} ({bad_B.sum()} of {len(rows_B)} read): draw "
            "them with dwf sample --batchnorm recalibrated, or train the zoo again"
        )


def check_accuracy(
    zoo: Zoo, rows: np.ndarray, *, accuracy_S: np.ndarray, split: str, num_images: int
) -> None:
    """Hold accuracies to those that a zoo records, if it does.

    Args:
        zoo: the zoo.
        rows: which of its rows were scored.
        accuracy_S: their accuracies, with their own running statistics.
        split: the images they were scored on, `test` or `val`.
        num_images: how many.

    Raises:
        DataUnavailable: some differ; names the first row.
    """
    column = f"{split}_accuracy"
    if column not in zoo.columns:
        return
    # A few logits may tie to the last bit, and sums come in another order after alignment.
    allowed = max(2 / num_images, 1e-3)
    recorded_S = zoo.columns[column][rows]
    off = np.flatnonzero(~(np.abs(recorded_S - accuracy_S) <= allowed))
    if len(off):
        row, found, recorded = rows[off[0]], accuracy_S[off[0]], recorded_S[off[0]]
        raise DataUnavailable(
            f"{zoo.path}: row {row} has {split} accuracy {found:.4f}, the zoo says "
            f"{recorded:.4f} ({len(off)} of {len(rows)} rows differ): the data or "
            "their preparation are not those it was trained on; see `data` in its zoo.json"
        )
