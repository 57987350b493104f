"""Rows of one shard: members are read one at a time, checked, named, scored and written.

Shape suffixes: B members of a shard, R of them that become rows, D numbers of one network.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.datasets.dataset import Dataset
from dwf.importers.columns import column_values
from dwf.importers.importer import Member, Unusable
from dwf.importers.naming import match_names
from dwf.importers.survey import Survey
from dwf.importers.tensors import State, as_float32, without_prefixes
from dwf.networks.functional import build_network, score_networks
from dwf.plain import Json
from dwf.randomness import threads
from dwf.zoo.facts import Facts
from dwf.zoo.shard import Block, Columns, write_shard

_DIGEST_BYTES = 16


@dataclass
class Reader:
    """Reads members into rows, and keeps what became of each.

    Args:
        survey: what the source holds.
    """

    survey: Survey
    seen: dict[str, str] = field(default_factory=dict)
    """Digest of a row -> the member that has it."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Name of each tensor of the network -> that in the files, where they differ."""
    names: dict[tuple, dict[str, str] | str] = field(default_factory=dict)
    """Names and shapes in a file -> name in the file of each tensor, or why they do not fit."""

    def go_on(self, told: dict[str, Json]) -> None:
        """Take what became of a shard that was written before: its `members`, and `renamed`."""
        self.seen |= {one["digest"]: one["member"] for one in told["members"] if one["row"]}
        self.renamed |= told["renamed"]

    def row(self, member: Member, out_D: np.ndarray) -> tuple[str, str]:
        """Fill a row with a member's weights; return its digest, and what was done, in words.

        Raises:
            Unusable: the member cannot become a row; says why.
        """
        importer = self.survey.importer
        state = without_prefixes(importer.read(member), importer.config.strip)
        floats, said = as_float32(state)
        own = self._match(floats)
        for entry in self.survey.layout.entries:
            values = floats[own[entry.name]]
            out_D[entry.offset : entry.stop] = values.numpy().reshape(-1)
        if not np.isfinite(out_D).all():
            bad = next(name for name, t in floats.items() if not t.isfinite().all())
            raise Unusable(f"{bad} is not finite")
        digest = hashlib.blake2b(out_D, digest_size=_DIGEST_BYTES).hexdigest()
        if digest in self.seen:
            raise Unusable(f"a duplicate of {self.seen[digest]}")
        self.seen[digest] = member.name
        return digest, "; ".join(sorted(said))

    def _match(self, floats: State) -> dict[str, str]:
        key = tuple((name, tensor.shape) for name, tensor in floats.items())
        if key not in self.names:
            shapes = {name: tuple(tensor.shape) for name, tensor in floats.items()}
            known = self.survey.importer.order_is_known
            try:
                matched = match_names(shapes, self.survey.layout, order_is_known=known)
                self.names[key] = matched
                for ours, theirs in matched.items():
                    if ours != theirs:
                        self.renamed.setdefault(ours, theirs)
            except Unusable as error:
                self.names[key] = str(error)
        found = self.names[key]
        if isinstance(found, str):
            raise Unusable(found)
        return found


def import_shard(
    target: Path,
    facts: Facts,
    *,
    index: int,
    reader: Reader,
    data: Dataset | None,
    progress: Callable[[int], None],
) -> list[dict[str, Json]]:
    """Read the members of a shard and write it; return what became of each member.

    Args:
        target: the shard.
        facts: what the zoo says of itself.
        index: which of its shards.
        reader: reads members.
        data: what networks are scored on; None: they are not.
        progress: told how many members of the shard are read.
    """
    survey = reader.survey
    numbers = survey.of_shard(index)
    weights_BD = np.empty((len(numbers), facts.layout.size), np.float32)
    kept: list[int] = []
    told: list[dict[str, Json]] = []
    for done, number in enumerate(numbers):
        if preemption.is_asked():
            preemption.stop()
        member = survey.members[number]
        outcome: dict[str, Json] = {"member": member.name, "run": member.run, "row": True}
        try:
            digest, said = reader.row(member, weights_BD[len(kept)])
            outcome |= {"digest": digest, "told": said}
            kept.append(number)
        except Unusable as error:
            outcome |= {"row": False, "told": str(error)}
        told.append(outcome)
        progress(done + 1)
    weights_RD = weights_BD[: len(kept)]
    columns = _columns(survey, kept) | _scores(survey, weights_RD, data)
    blocks: Iterator[Block] = iter([(columns, weights_RD)] if kept else [])
    write_shard(target, facts, index=index, num_rows=len(kept), blocks=blocks)
    return told


def measured(survey: Survey) -> list[str]:
    """Return the columns that dwf measures itself."""
    parts = survey.config.score if survey.network.is_known else ()
    return [f"{part}_{what}" for part in parts for what in ("accuracy", "loss")]


def _columns(survey: Survey, kept: list[int]) -> Columns:
    members = [survey.members[number] for number in kept]
    columns: Columns = {
        "network": np.array([survey.runs[one.run] for one in members], np.int64),
        "epoch": np.array([one.epoch for one in members], np.int32),
        "split": survey.splits[kept],
        "batchnorm": np.full(len(members), _statistics(survey)),
        "member": np.array([one.name for one in members]),
    }
    if survey.is_one_run:
        columns["step"] = np.array(kept, np.int64)
    own = measured(survey)
    return columns | column_values(members, survey.columns, measured=own)


def _statistics(survey: Survey) -> str:
    return "trained" if any(e.role == "buffer" for e in survey.layout.entries) else "none"


def _scores(survey: Survey, weights_RD: np.ndarray, data: Dataset | None) -> Columns:
    if data is None or not len(weights_RD):
        return {}
    network = build_network(survey.network)
    columns: Columns = {}
    with threads(1):  # the last digit of a loss depends on it
        for name in survey.config.score:
            state = survey.layout.unflatten(torch.from_numpy(weights_RD))
            scores = score_networks(network, state, data=data, part=data.part(name))
            columns[f"{name}_accuracy"] = scores.accuracy_N
            columns[f"{name}_loss"] = scores.loss_N
    return columns
