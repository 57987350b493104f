"""Measure sets of networks: every set is scored and held against the same training networks.

BatchNorm's running statistics follow from weights and images. So they take no part in distances,
spread and map, and are given anew to networks that nobody trained (see `scoring`).

Shape suffixes: N training networks, J of them that limits are taken from, S networks of a set, B of
one block of it, D numbers of one network, K of them that are learnt, M images of the split, C
principal axes, L layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dwf import preemption
from dwf.align.canonical import balance
from dwf.align.frame import groups_of
from dwf.align.groups import Group, permute
from dwf.align.matching import Matcher
from dwf.datasets.dataset import Dataset
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.evaluation.config import BatchNormConfig
from dwf.evaluation.measure.baselines import Drawn
from dwf.evaluation.measure.behaviour import behaviour_images
from dwf.evaluation.measure.ensembles import SumInOrder, draw_members, vote_accuracy
from dwf.evaluation.measure.limits import Limits, Novelty
from dwf.evaluation.measure.nearness import Nearness
from dwf.evaluation.measure.novelty import (
    Blocks,
    Rows,
    disagreement,
    moments,
    nearest,
    overlap,
    principal_axes,
)
from dwf.evaluation.measure.profile import accuracy_bars, num_axes, profile_of
from dwf.evaluation.measure.recombined import Arm, Recombiner
from dwf.evaluation.measure.scoring import (
    Scorer,
    Source,
    check_accuracy,
    refuse_broken_statistics,
    refuse_without_statistics,
)
from dwf.plain import Json
from dwf.zoo.moments import Moments
from dwf.zoo.store import Zoo

MIN_TRAINING = 4
"""Fewer training networks have no spread of nearest distances to speak of."""
MAP_NETWORKS = 1000
"""Principal axes come from at most so many training networks: their cost grows with the cube."""
_TINY = 1e-300  # the reach of networks that are all at their mean; `_refuse_copies` says so


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
    """See `Novelty`, float64."""
    nearest_S: np.ndarray
    """Position among the training networks of the one at that distance, int64."""
    behaviour_S: np.ndarray
    """See `Novelty`, float64."""
    units_SL: np.ndarray
    """See `Novelty`, float64."""
    overlap_S: np.ndarray
    """Overlap of wrong answers with that network, float64."""
    highest_overlap_S: np.ndarray
    """Highest overlap of wrong answers with any training network, float64."""
    reach_S: np.ndarray
    """Distance to the training networks' mean, in the median of theirs, float64."""
    disagreement_S: np.ndarray
    """Share of the images that it answers otherwise than that network, float64."""
    map_S2: np.ndarray
    """Place on the first two principal axes of all training networks of the zoo, float64."""
    places_SC: np.ndarray
    """Place on the principal axes of the training networks, those of most variance first,
    float64."""
    spread: float
    """Root mean square distance to the set's own mean; NaN for one network."""
    wrong_SM: np.ndarray
    """Which of the split's images each network gets wrong, bool."""
    compared: dict[str, np.ndarray] = field(default_factory=dict)
    """Where BatchNorm's statistics come from -> accuracy_S with these, as far as compared."""
    ensemble: float | None = None
    """Share of the images that the ensemble of `Yardstick.ensemble` of its networks gets right."""

    @property
    def novelty(self) -> Novelty:
        """How far the networks are from the training networks."""
        return Novelty(self.distance_S, self.behaviour_S, units_SL=self.units_SL)


class Yardstick:
    """Training networks of a zoo, measured once; sets are held against them.

    Args:
        zoo: what generators learn from.
        data: the images of its networks.
        device: where to compute.
        split: the images that are scored, `test` or `val`.
        batchnorm: which statistics networks with BatchNorm are judged with.
        workers: networks that are scored at a time; see `EvaluateConfig.workers`.
        ensemble: networks of an ensemble of training networks, or of a zoo that is measured; 0: no
            ensembles.
        rows: the training networks' rows, as a generator learnt from them; default: all, at their
            last epoch.
        whole: that of all training networks, whose map this one's sets are drawn on; default: the
            map is of its own networks.

    Raises:
        ConfigError: there are no images of this split, or networks with BatchNorm have no running
            statistics of their own.
        TooFewNetworks: there are fewer than four training networks, or half of them are copies
            of others.
        DataUnavailable: the networks do not have the accuracies that the zoo records.
    """

    def __init__(
        self,
        zoo: Zoo,
        data: Dataset,
        *,
        device: str = "cpu",
        split: str = "test",
        batchnorm: BatchNormConfig | None = None,
        workers: int | None = None,
        ensemble: int = 0,
        rows: np.ndarray | None = None,
        whole: "Yardstick | None" = None,
    ):
        self.ensemble = ensemble
        self.zoo, self.data, self.device, self.split = zoo, data, device, split
        self.batchnorm, self._workers = batchnorm or BatchNormConfig(), workers
        rows = zoo.rows(split="train", epoch="last") if rows is None else rows
        self.training = Rows(zoo, rows, learnt=True)
        self._refuse_unfit()
        self.network = zoo.build_network()
        gathered = moments(Rows(zoo, rows))
        gathered.copy_constants(zoo.layout, zoo.read(rows[:1])[0])
        self.mean_D = gathered.mean_D
        self.deviation_K = zoo.layout.learnt(gathered.deviation_D)
        self._whole = whole
        first = Rows(zoo, rows[:MAP_NETWORKS], learnt=True)
        count = num_axes(len(first), self.zoo.layout.learnt(self.mean_D).size)
        self.axes_CK, self.axes_share_C = principal_axes(first, count)
        self.groups = self._groups_of_frame()
        signs = any(group.signs for group in self.groups)
        self._match = Matcher(zoo.layout, self.groups, signs=signs, heads_again=True)
        self._frame_D = torch.from_numpy(self.mean_D).float()
        self.scorer = Scorer(
            self.network,
            zoo.layout,
            data=data,
            split=split,
            config=self.batchnorm,
            template_D=self.mean_D,
            device=device,
            workers=workers,
            keep_answers=True,
            compared_MX=behaviour_images(data, num_networks=len(rows)),
        )
        self.nearness = Nearness(self.training, zoo.build_network(), data=data, device=device)
        self._wrong_NM: np.ndarray | None = None
        self._answers_NM: np.ndarray | None = None
        self._reach: float | None = None
        self.originals = self.measure_zoo(zoo, rows, leave_one_out=True)
        self.limits = Limits.of(
            self._accuracy_N,
            self.originals.novelty,
            layers=tuple(layer.name for layer in self.nearness.layers),
            left_out=self.nearness.left_out,
            single_run=self.nearness.single_run,
        )
        self._refuse_copies()

    def of_rows(self, rows: np.ndarray) -> "Yardstick":
        """Return that of some of the training networks, by their rows: itself if they are all.

        Raises:
            TooFewNetworks: there are fewer than four, or half of them are copies of others.
        """
        if np.array_equal(rows, self.training.rows):
            return self
        return Yardstick(
            self.zoo,
            self.data,
            device=self.device,
            split=self.split,
            batchnorm=self.batchnorm,
            workers=self._workers,
            ensemble=self.ensemble,
            rows=rows,
            whole=self,
        )

    def profile(self, measured: Measured, bar: float) -> dict[str, Json]:
        """Return the profile of a set; see `profile_of`.

        Args:
            measured: the set.
            bar: accuracy of the fixed bar.
        """
        return profile_of(
            accuracy_S=measured.accuracy_S,
            novelty=measured.novelty,
            places_SC=measured.places_SC,
            disagreement_S=measured.disagreement_S,
            limits=self.limits,
            bars=accuracy_bars(self._accuracy_N, bar),
            zoo_places_NC=self.originals.places_SC,
            zoo_disagreement_N=self.originals.disagreement_S,
        )

    @property
    def has_batchnorm(self) -> bool:
        """Whether the networks have running statistics."""
        return bool(self.scorer.buffers)

    def _refuse_unfit(self) -> None:
        zoo, split = self.zoo, self.split
        if not len(self.data.part(split)):
            raise ConfigError(
                f"split = {split!r}: {zoo.path} was trained with data.validation = 0, so there are "
                "no such images: give --split test"
            )
        num, total = len(self.training), len(zoo.rows(split="train", epoch="last"))
        if total < MIN_TRAINING:
            raise TooFewNetworks(
                f"{zoo.path} has {total} training networks, an evaluation needs "
                f"{MIN_TRAINING}: train a larger zoo, or hold out a smaller share"
            )
        if num < MIN_TRAINING:
            raise TooFewNetworks(
                f"{num} of the {total} training networks of {zoo.path} were learnt from, an "
                f"evaluation needs {MIN_TRAINING}: learn from more (networks, or rows)"
            )

    def _refuse_copies(self) -> None:
        if self.limits.unit > 0:
            return
        distance_S = self.originals.distance_S
        raise TooFewNetworks(
            f"{self.zoo.path}: {np.sum(distance_S == 0)} of {len(distance_S)} training networks "
            "are copies of another, so there is no unit of distance: evaluate a zoo whose networks "
            "differ; of one network's steps keep fewer (keep.every), or raise their learning rate"
        )

    def measure_zoo(
        self, zoo: Zoo, rows: np.ndarray, *, leave_one_out: bool = False, compare: bool = False
    ) -> Measured:
        """Measure rows of a zoo, and hold them to the accuracies it records, if it does.

        This zoo's own networks keep their running statistics. Those of other zoos are judged with
        what `batchnorm.score` says.

        Args:
            zoo: this zoo, or one of generated networks, which are put into its frame first.
            rows: which of its rows.
            leave_one_out: the rows are the training networks: each is held against the others.
            compare: score them with other running statistics too, where they have any.

        Raises:
            TooFewNetworks: there are no rows.
            ShapeMismatch: the zoo has another layout.
            ConfigError: networks with BatchNorm have no running statistics.
            DataUnavailable: its networks do not have the accuracies that it records.
            CorruptShard: a row does not match its checksum, or has statistics that cannot be.
        """
        if not len(rows):
            raise TooFewNetworks(f"{zoo.path} has no networks to score: draw at least one")
        if zoo.layout.digest != self.zoo.layout.digest:
            raise ShapeMismatch(
                f"{zoo.path} has another layout ({zoo.layout.size} weights) than {self.zoo.path} "
                f"({self.zoo.layout.size}): evaluate samples against the zoo that their generator "
                "learnt from"
            )
        own = zoo is self.zoo
        refuse_without_statistics(zoo, rows, network=self.network, own=own)
        source: Source = "own" if own else self.batchnorm.score
        sources: list[Source] = list(self.batchnorm.compare) if compare else []
        if sources and (own or "template" not in zoo.columns.get("batchnorm", ["template"])):
            sources.insert(0, "own")
        blocks = self._checked(zoo, rows)
        recorded = f"{self.split}_accuracy" in zoo.columns
        if recorded and self.has_batchnorm and not own and "own" not in sources:
            sources.insert(0, "own")  # what is recorded was found with these
        voting_S = draw_members(len(rows), self.ensemble)
        measured = self.measure(
            blocks, leave_one_out, source=source, compare=sources, voting_S=voting_S
        )
        judged_S = self._accuracy_N if leave_one_out else measured.accuracy_S
        own_S = measured.compared.get("own", judged_S)
        check_accuracy(
            zoo, rows, accuracy_S=own_S, split=self.split, num_images=len(self._labels())
        )
        return measured

    def measure_drawn(
        self, drawn: Drawn, compare: bool = False, *, in_frame: bool = True
    ) -> Measured:
        """Measure a baseline; see `measure_zoo`.

        Args:
            drawn: the baseline.
            compare: see `measure_zoo`.
            in_frame: whether it is made of networks in the frame; else it is put there first.
        """
        sources = self.batchnorm.compare if compare else ()
        most_S = drawn.baseline.mixture_SN.argmax(1)
        blocks = (
            (positions_B, self._with_constants(self._filled(weights_BK), most_S[positions_B]))
            for positions_B, weights_BK in drawn
        )
        if not in_frame:
            blocks = ((at_B, self.into_frame(weights_BD)) for at_B, weights_BD in blocks)
        return self.measure(blocks, False, source=self.batchnorm.score, compare=sources)

    def arms(self, count: int, *, seed: int) -> list[Arm]:
        """Return the null arms of so many networks each; see `recombined`."""
        found, network = self.nearness, self.zoo.build_network()
        made = Recombiner(self.training, network, groups=found.groups, reader=found.reader)
        return made.arms(count, seed=seed)

    def measure_arm(self, arm: Arm) -> Measured:
        """Measure a null arm: its networks are put into the frame as generated ones are."""
        blocks = ((positions_B, self.into_frame(weights_BD)) for positions_B, weights_BD in arm)
        return self.measure(blocks, source=self.batchnorm.score)

    def measure_copies(self, positions_S: np.ndarray) -> Measured:
        """Measure training networks, by their position among them, as a set of its own."""
        return self.measure(Rows(self.zoo, self.training.rows[positions_S]))

    def measure(
        self,
        blocks: Blocks,
        leave_one_out: bool = False,
        *,
        source: Source = "own",
        compare: Sequence[Source] = (),
        voting_S: np.ndarray | None = None,
    ) -> Measured:
        """Measure a set of networks in one pass over its weights.

        Args:
            blocks: whole rows, in the frame.
            leave_one_out: see `measure_zoo`.
            source: running statistics with which they are judged.
            compare: others with which their accuracy is found as well.
            voting_S: networks that are members of an ensemble, bool.
        """
        gathered, parts, votes = Moments(), [], SumInOrder()
        for positions_B, weights_BD in blocks:
            learnt_BK = self.zoo.layout.learnt(weights_BD)
            gathered.add(learnt_BK)
            voting_B = None if voting_S is None else voting_S[positions_B]
            scored = self.scorer.score(weights_BD, source, compare=compare, voting_B=voting_B)
            votes.add(len(parts), scored.pop("votes_MK", None))
            part = scored | self._place(learnt_BK)
            if not leave_one_out:  # else all must be known before any is held against the others
                part |= self.nearness.measure(weights_BD, part.pop("behaviour_SF"))
            parts.append(part)
            if preemption.is_asked():
                preemption.stop()
        columns = _joined(parts)
        centre_S = columns.pop("centre_S")
        if leave_one_out:
            columns, centre_S = self._learn(columns, centre_S)
        disagreement_S = disagreement(
            columns.pop("answers_SM"), self._answers_NM, nearest_S=columns["nearest_S"]
        )
        overlap_S, highest_S = overlap(
            columns["wrong_SM"],
            self._wrong_NM,
            nearest_S=columns["nearest_S"],
            own_S=self.nearness.judged_J if leave_one_out else None,
        )
        compared = {name: columns.pop(name) for name in compare if name in columns}
        return Measured(
            **columns,
            overlap_S=overlap_S,
            highest_overlap_S=highest_S,
            disagreement_S=disagreement_S,
            reach_S=centre_S / self._reach,
            spread=gathered.spread,
            compared=compared,
            ensemble=None if votes.total is None else vote_accuracy(votes.total, self._labels()),
        )

    def _learn(
        self, columns: dict[str, np.ndarray], centre_N: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Keep what others are held against; hold some of the training networks against the others.

        Returns:
            The columns of these networks, and their distances from the mean.
        """
        self._wrong_NM, self._accuracy_N = columns["wrong_SM"], columns["accuracy_S"]
        smallest = np.min_scalar_type(-self.data.num_classes)  # they are kept of all networks
        self._answers_NM = columns["answers_SM"].astype(smallest)
        self._reach = max(float(np.median(centre_N)), _TINY)
        judged_J = self.nearness.judged_J
        found = self.nearness.learn(columns.pop("behaviour_SF"))
        judged = {name: values_N[judged_J] for name, values_N in columns.items()}
        return judged | found, centre_N[judged_J]

    def _labels(self) -> np.ndarray:
        """Return labels_M of the split."""
        part = self.data.part(self.split)
        return part.labels[part.index].numpy()

    def _checked(self, zoo: Zoo, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows of a zoo, held to their checksums, in the frame."""
        for positions_B, weights_BD in Rows(zoo, rows):
            refuse_broken_statistics(
                zoo, rows[positions_B], weights_BD=weights_BD, buffers=self.scorer.buffers
            )
            own = zoo is self.zoo
            yield positions_B, weights_BD if own else self.into_frame(weights_BD)

    def _filled(self, weights_BK: np.ndarray) -> np.ndarray:
        """Return whole rows: the training networks' mean is what was not drawn."""
        if weights_BK.shape[1] == self.zoo.layout.size:
            return weights_BK
        weights_BD = np.tile(self.mean_D.astype(np.float32), (len(weights_BK), 1))
        at = 0
        for start, stop in self.zoo.layout.spans():
            weights_BD[:, start:stop] = weights_BK[:, at : at + stop - start]
            at += stop - start
        return weights_BD

    def _with_constants(self, weights_BD: np.ndarray, most_B: np.ndarray) -> np.ndarray:
        """Give rows the constants of the training network that each is made of most, in place."""
        for entry in self.zoo.layout.constants:
            part = slice(entry.offset, entry.stop)
            for row_D, position in zip(weights_BD, most_B.tolist(), strict=True):
                row_D[part] = self.zoo.map_row(int(self.training.rows[position]))[part]
        return weights_BD

    def _groups_of_frame(self) -> tuple[Group, ...]:
        """Groups that the zoo's alignment permuted, rescaled or flipped; none without alignment."""
        aligned = self.zoo.facts.aligned
        return groups_of(self.zoo, aligned.scale, signs=aligned.signs) if aligned else ()

    def into_frame(self, weights_BD: np.ndarray) -> np.ndarray:
        """Return generated networks in the zoo's frame; what they compute stays.

        A generator to which the order of units means nothing returns them in any order, and a copy
        with its units shuffled must not pass for new. Each network is matched to the mean of the
        training networks; of its two orders the one nearer to a training network counts.
        """
        if not self.groups:
            return weights_BD
        layout = self.zoo.layout
        given_BD = balance(torch.from_numpy(weights_BD), layout, groups=self.groups)
        orders = self._match(given_BD, self._frame_D)
        matched_BD = permute(given_BD, layout, groups=self.groups, orders=orders).numpy()
        given_BD = given_BD.numpy()
        before_B, after_B = (
            nearest(layout.learnt(each), self.training, own_B=None, device=self.device)[0]
            for each in (given_BD, matched_BD)
        )
        return np.where((after_B < before_B)[:, None], matched_BD, given_BD)

    def _place(self, learnt_BK: np.ndarray) -> dict[str, np.ndarray]:
        """Return where networks lie: distance from the mean, places on principal axes."""
        centred_BK = learnt_BK - self.zoo.layout.learnt(self.mean_D)
        places_BC = centred_BK @ self.axes_CK.T
        distance_B = np.linalg.norm(centred_BK, axis=1)
        map_B2, whole = places_BC[:, :2], self._whole
        if whole is not None:  # one map for a report
            centred_BK = learnt_BK - self.zoo.layout.learnt(whole.mean_D)
            map_B2 = (centred_BK @ whole.axes_CK.T)[:, :2]
        return {"centre_S": distance_B, "places_SC": places_BC, "map_S2": map_B2}


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
