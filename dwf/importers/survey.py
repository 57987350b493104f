"""A look at a source before anything is written: its members, their network, their layout.

Shape suffixes: N runs.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.importers.columns import column_types, split_by_column
from dwf.importers.config import IMPORTERS, NO_DATASET, ImportConfig, refuse_missing_source
from dwf.importers.facts_file import with_facts
from dwf.importers.importer import Importer, Member, Unusable, natural
from dwf.importers.naming import MOST_NAMED, Shapes, match_names
from dwf.importers.recognise import block_of, recognise
from dwf.importers.split_file import with_splits
from dwf.importers.tensors import as_float32, without_prefixes
from dwf.metrics import logger
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network
from dwf.settings import find
from dwf.zoo.layout import Layout
from dwf.zoo.store import split_networks, split_steps

_LOOKED_AT = 64
_SHARD_BYTES = 64 * 2**20
_MOST_OF_SHARD = 4096


@dataclass(frozen=True)
class Survey:
    """Members of a source in the order of rows, and the network that they are."""

    config: ImportConfig
    importer: Importer
    members: tuple[Member, ...]
    network: NetworkConfig
    layout: Layout

    @classmethod
    def of(cls, config: ImportConfig) -> "Survey":
        """Look through a source; some of its members are read.

        Args:
            config: settings of the import.

        Raises:
            ConfigError: it is not of this format, holds no networks, or networks of another
                architecture than the settings', or these name none.
        """
        importer, members = list_members(config)
        members = _where(members, config.where)
        if config.split_file is not None:
            members = with_splits(members, Path(config.split_file))
        members.sort(key=lambda one: (natural(one.run), one.epoch, natural(one.name)))
        found = _architectures(importer, members)
        network = config.network or importer.network(members)
        if network is None:
            raise ConfigError(_unnamed(config, importer, found))
        if network.is_known and config.data.dataset is None:
            raise ConfigError(NO_DATASET)
        layout = _layout_of(network, found)
        _tell_others(config, importer, layout, found)
        made = cls(config, importer, members=tuple(members), network=network, layout=layout)
        made.splits.flags.writeable = False  # a column that is no split is refused here, too
        return made

    @cached_property
    def runs(self) -> dict[str, int]:
        """Run -> its number, in the order of rows."""
        return {run: i for i, run in enumerate(dict.fromkeys(one.run for one in self.members))}

    @cached_property
    def columns(self) -> dict[str, np.dtype]:
        """Type of each column that the source tells of."""
        return column_types(self.members)

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each member, shape [members]: by its run or, of a single one, by its place."""
        split = self.config.split
        column = "split" if self.config.split_file else self.config.split_column
        if column is not None:
            of_run = split_by_column(self.members, column)
            return np.array([of_run[one.run] for one in self.members])
        if self.is_one_run:
            return split_steps(len(self.members), split.val, test=split.test)
        of_run_N = split_networks(len(self.runs), split.val, test=split.test, seed=self.config.seed)
        return of_run_N[[self.runs[one.run] for one in self.members]]

    @property
    def is_one_run(self) -> bool:
        """Whether all members are of one training, whose steps count as networks."""
        return len(self.runs) == 1 and len(self.members) > 1

    @property
    def shard_size(self) -> int:
        """Members of a shard."""
        fitting = _SHARD_BYTES // (4 * max(self.layout.size, 1))
        return self.config.shard or max(1, min(fitting, _MOST_OF_SHARD))

    @property
    def num_shards(self) -> int:
        """How many shards the zoo has."""
        return -(-len(self.members) // self.shard_size)

    def of_shard(self, index: int) -> range:
        """Return the numbers of the members of a shard."""
        size = self.shard_size
        return range(index * size, min((index + 1) * size, len(self.members)))

    @cached_property
    def listing(self) -> str:
        """Digest of what the members are called and what is told of them."""
        digest = hashlib.sha256()
        for one in self.members:
            told = [one.name, one.run, one.epoch, one.row, dict(one.columns)]
            digest.update(json.dumps(told, sort_keys=True).encode())
        return digest.hexdigest()[:16]


def list_members(config: ImportConfig) -> tuple[Importer, list[Member]]:
    """Return the importer of a source, and its members with their facts; no weights read.

    Raises:
        ConfigError: the source is not there, not of this format, or holds no networks.
    """
    refuse_missing_source(config)
    importer: Importer = find(IMPORTERS, config.format)(config)
    members = importer.members()
    if not members:
        raise importer.empty("it is empty")
    return importer, with_facts(members, Path(config.facts)) if config.facts else members


def _where(members: list[Member], conditions: tuple[str, ...]) -> list[Member]:
    """Return the members whose columns have the values of all conditions, `column=value`.

    Raises:
        ConfigError: it is no condition, or no member has the value; says which values there are.
    """
    for condition in conditions:
        column, equals, value = condition.partition("=")
        found = Counter(str(one.columns[column]) for one in members if column in one.columns)
        if not equals or value not in found:
            values = ", ".join(f"{v} ({n})" for v, n in found.most_common(MOST_NAMED))
            raise ConfigError(
                f"where = {condition!r}: expected column=value; {column} has "
                f"{values or 'no values: no member has this column'}"
            )
        members = [one for one in members if str(one.columns.get(column)) == value]
    return members


def _shapes_of(importer: Importer, member: Member) -> Shapes:
    """Return name -> shape of the floating-point tensors of a member.

    Raises:
        Unusable: it cannot be read.
    """
    state = without_prefixes(importer.read(member), importer.config.strip)
    floats, _ = as_float32(state)
    return {name: tuple(tensor.shape) for name, tensor in floats.items()}


def _architectures(importer: Importer, members: list[Member]) -> list[tuple[Shapes, int, str]]:
    """Return (shapes, how many, one of them) of those members that are looked at, the most first.

    Raises:
        ConfigError: none of them can be read; says why the first cannot.
    """
    at = np.unique(np.linspace(0, len(members) - 1, min(_LOOKED_AT, len(members))).astype(int))
    counts: Counter[tuple] = Counter()
    examples: dict[tuple, str] = {}
    why = ""
    for member in (members[i] for i in at.tolist()):
        try:
            key = tuple(_shapes_of(importer, member).items())
        except Unusable as error:
            why = why or f"{member.path}: {error}"
            continue
        counts[key] += 1
        examples.setdefault(key, member.name)
    if not counts:
        raise ConfigError(
            f"source = {importer.config.source!r} holds 0 networks that can be read: {why}"
        )
    return [(dict(key), count, examples[key]) for key, count in counts.most_common()]


def _layout_of(network: NetworkConfig, found: list[tuple[Shapes, int, str]]) -> Layout:
    """Return the layout of rows: the network's, or where none is known the most members'."""
    if network.is_known:
        return Layout.of(build_network(network))
    return Layout.of_shapes(found[0][0])


def _tell_others(
    config: ImportConfig,
    importer: Importer,
    layout: Layout,
    found: list[tuple[Shapes, int, str]],
) -> None:
    """Tell of members of other architectures than the settings'; refuse where all are.

    Raises:
        ConfigError: none of those looked at is of the network; says why, and which they are.
    """
    others = []
    for shapes, count, name in found:
        try:
            match_names(shapes, layout, order_is_known=importer.order_is_known)
        except Unusable as error:
            others.append((count, name, error))
    if not others:
        return
    counts = "; ".join(f"{count} like {name} ({why})" for count, name, why in others[:MOST_NAMED])
    if len(others) == len(found):
        raise ConfigError(
            f"{_named(config)} has the tensors of none of the networks in {config.source!r}: "
            f"{counts}. {_unnamed(config, importer, found)}"
        )
    logger.warning(
        "%s: of %d networks looked at, %d are of %d other architectures and are left out: %s",
        *(config.source, sum(n for _, n, _ in found), sum(n for n, _, _ in others), len(others)),
        counts,
    )


def _named(config: ImportConfig) -> str:
    return config.network.named if config.network else f"format {config.format}"


def _unnamed(config: ImportConfig, importer: Importer, found: list[tuple[Shapes, int, str]]) -> str:
    """Say which network a source holds, for settings that do not name it."""
    dataset = config.data.dataset
    image = load_dataset(dataset).shape if dataset else None
    several = ""
    if len(found) > 1:
        counts = "; ".join(f"{n} like {name}" for _, n, name in found[:MOST_NAMED])
        several = f" (of {len(found)} architectures among those looked at: {counts})"
    best = recognise(found[0][0], image=image, order_is_known=importer.order_is_known)
    if best is None:
        named = ", ".join(f"{k} {list(v)}" for k, v in list(found[0][0].items())[:MOST_NAMED])
        own = 'network: {kind: python, target: "package.module:factory"}'
        return (
            f"network is missing, and dwf has no architecture with the tensors {named}, ...: give "
            f"your own as `{own}`, or `network: {{kind: none}}` to take them unscored{several}"
        )
    which = "the majority is" if len(found) > 1 else "this fits:"
    return f"network is missing; {which} {block_of(best)}{several}"
