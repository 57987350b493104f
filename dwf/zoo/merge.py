"""Put several zoos of one architecture and one dataset together, as one new zoo.

Each shard becomes a shard of the new zoo: its networks get new numbers and keep their split, and
the columns `source` and `source_network` say where they came from. Rows are streamed.

Shape suffixes: N rows of a zoo, B rows of a block.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf import __version__
from dwf.errors import ConfigError, CorruptShard, RunConflict, ShapeMismatch
from dwf.run_folder import LEFTOVERS, hold, sweep
from dwf.same_settings import differences
from dwf.settings import to_dict
from dwf.zoo.facts import FILE, Facts
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Merged
from dwf.zoo.shard import Block, Columns, Shard, shard_name, write_shard
from dwf.zoo.store import STREAM_BYTES, Zoo, create_zoo, finish_zoo, is_whole

SOURCE, SOURCE_NETWORK = "source", "source_network"
_OWN = {"format", "version", "layout", "num_shards", "provenance", "cohort", "count", "seed"}


@dataclass(frozen=True)
class Source:
    """One of the zoos that are put together."""

    zoo: Zoo
    name: str
    """Name of the zoo in the column `source`."""
    first: int
    """Number that is added to those of its networks."""
    count: int
    """How many numbers its networks take, with those that diverged."""


def merge_zoos(
    folder: Path, folders: Sequence[Path], *, report: Callable[[int], None] = lambda rows: None
) -> Zoo:
    """Write the networks of several zoos as one zoo; resume where an earlier attempt stopped.

    Args:
        folder: the new zoo's.
        folders: whole zoos of one layout, network and data; no network is in two of them.
        report: called with the number of rows written so far.

    Raises:
        ShapeMismatch: the zoos differ in layout or columns.
        ConfigError: they differ in network or data, or hold equal networks.
        RunConflict: the folder holds something else.
        CorruptShard: a row does not match its checksum.
    """
    _refuse_occupied(folder, folders)
    sources = _sources([Zoo.open(path) for path in folders])
    for source in sources[1:]:
        _refuse_different(sources[0].zoo, source.zoo)
    _refuse_equal_networks(sources)
    shards = [(source, shard) for source in sources for shard in source.zoo.shards]
    facts = _facts(folder, sources, len(shards))
    with hold(folder / "run"):
        if (folder / "zoo.json").exists():
            _refuse_other(folder, facts)
        else:
            create_zoo(folder, facts)
        if not is_whole(folder):
            _write_shards(folder, facts, shards, report)
        merged = finish_zoo(folder)
        sweep(folder.glob(LEFTOVERS))
    expected_N = np.concatenate([source.zoo.columns.get("checksum", []) for source in sources])
    if not np.array_equal(merged.columns.get("checksum", []), expected_N):
        raise CorruptShard(f"{folder} differs from the zoos it was made of: remove it, merge again")
    return merged


def _sources(zoos: list[Zoo]) -> list[Source]:
    names = [zoo.name for zoo in zoos]
    sources: list[Source] = []
    for zoo in zoos:
        numbers = zoo.columns.get("network", np.zeros(0, np.int64))
        lost = [network for network, _, _ in zoo.diverged]
        count = max([int(numbers.max(initial=-1)), (zoo.facts.count or 0) - 1, *lost]) + 1
        unique = names.count(zoo.name) == 1
        name = zoo.name if unique else f"{zoo.name}-{zoo.fingerprint[:8]}"
        first = sources[-1].first + sources[-1].count if sources else 0
        sources.append(Source(zoo, name, first=first, count=count))
    return sources


# --- what cannot be put together ---------------------------------------------------------------


def _refuse_occupied(folder: Path, folders: Sequence[Path]) -> None:
    if folder.resolve() in [path.resolve() for path in folders]:
        raise RunConflict(f"{folder} is one of the zoos to merge: give the new one another name")
    if len({path.resolve() for path in folders}) < max(len(folders), 2):
        given = ", ".join(map(str, folders)) or "none"
        raise ConfigError(f"zoos to merge: {given}: expected two or more different ones")
    if (folder / "zoo.json").exists() or not folder.exists():
        return
    others = [file.name for file in folder.iterdir() if file.name != "run"]
    others = sorted(name for name in others if ".partial-" not in name)
    if others:
        raise RunConflict(f"{folder} holds {others[0]}, and is no zoo: give a new folder")


def _refuse_different(one: Zoo, other: Zoo) -> None:
    if one.layout.digest != other.layout.digest:
        raise ShapeMismatch(
            f"{other.path} has layout {other.layout.digest}, {one.path} {one.layout.digest}: "
            f"{_first_difference(one.layout, other.layout)}; only zoos of one layout are merged"
        )
    for key in ("network", "data"):
        mine, theirs = (to_dict(vars(zoo.facts)[key]) for zoo in (one, other))
        for name, first, second in differences(mine, theirs):
            raise ConfigError(
                f"{other.path} has {key}.{name} = {second!r}, {one.path} {first!r}: only zoos of "
                f"one {key} are merged"
            )
    if not len(one) or not len(other):
        return
    kinds = [
        {name: values.dtype.kind for name, values in zoo.columns.items() if name not in _ADDED}
        for zoo in (one, other)
    ]
    different = sorted(n for n in kinds[0] | kinds[1] if kinds[0].get(n) != kinds[1].get(n))
    if different:
        where = one if different[0] in kinds[0] else other
        raise ShapeMismatch(
            f"{other.path} and {one.path} differ in the columns {', '.join(different)} "
            f"({different[0]} as it is stands in {where.path}): only zoos with the same facts "
            "about their networks are merged"
        )


_ADDED = {SOURCE, SOURCE_NETWORK}


def _first_difference(one: Layout, other: Layout) -> str:
    for a, b in itertools.zip_longest(one.entries, other.entries):
        if a != b:
            told = [f"{e.name} {list(e.shape)} ({e.role})" if e else "no tensor" for e in (a, b)]
            return f"first {told[1]} against {told[0]}"
    return "no difference"


def _refuse_equal_networks(sources: list[Source]) -> None:
    """A network in two zoos may be in two splits: what is held out would be learnt from."""
    checksums = [source.zoo.columns.get("checksum", np.zeros(0, np.uint32)) for source in sources]
    owner_N = np.repeat(np.arange(len(sources)), [len(own) for own in checksums])
    row_N = np.concatenate([np.arange(len(own)) for own in checksums])
    all_N = np.concatenate(checksums)
    order = np.argsort(all_N, kind="stable")
    twins = np.flatnonzero(all_N[order][1:] == all_N[order][:-1])
    for one, other in zip(order[twins], order[twins + 1], strict=True):
        a, b = sources[owner_N[one]], sources[owner_N[other]]
        rows = [row_N[[one]], row_N[[other]]]
        # Checksums of 32 bits agree by chance, too, in a large zoo.
        if a is b or not np.array_equal(a.zoo.read(rows[0]), b.zoo.read(rows[1])):
            continue
        numbers = [int(s.zoo.columns["network"][r][0]) for s, r in zip((a, b), rows, strict=True)]
        raise ConfigError(
            f"network {numbers[1]} of {b.zoo.path} equals network {numbers[0]} of {a.zoo.path}, so "
            "that it could be learnt from and held out at once: train zoos to merge with different "
            "--seed"
        )


def _refuse_other(folder: Path, facts: Facts) -> None:
    found, expected = Facts.read(folder).to_json(), facts.to_json()
    for key in sorted(expected):
        if found.get(key) != expected[key]:
            raise RunConflict(
                f"{folder} is another zoo already ({key} is not what these zoos would give): give "
                "another folder, or remove this one"
            )


# --- the new zoo -------------------------------------------------------------------------------


def _facts(folder: Path, sources: list[Source], num_shards: int) -> Facts:
    """Return the facts of the new zoo: those that all share, and where each differs."""
    all_facts = [source.zoo.facts.to_json() for source in sources]
    keys = sorted(set().union(*all_facts) - _OWN)
    common = [key for key in keys if all(f.get(key) == all_facts[0].get(key) for f in all_facts)]
    told = [
        {
            "name": source.name,
            "fingerprint": source.zoo.fingerprint,
            "rows": len(source.zoo),
            "networks_from": source.first,
            "seed": facts["seed"],
            "differs": {key: facts.get(key) for key in keys if key not in common},
            "provenance": facts.get("provenance", {}),
        }
        for source, facts in zip(sources, all_facts, strict=True)
    ]
    first = all_facts[0]
    merged = {key: first[key] for key in common} | {
        "count": sum(source.count for source in sources),
        "seed": first["seed"],
        "provenance": Merged(f"dwf {__version__}", tuple(told)).to_json(),
    }
    own = {"num_shards": num_shards, "layout": first["layout"]}
    return Facts.of(merged | own, folder / FILE)


def _write_shards(
    folder: Path,
    facts: Facts,
    shards: list[tuple[Source, Shard]],
    report: Callable[[int], None],
) -> None:
    kinds = _common_kinds(list(dict.fromkeys(source.zoo for source, _ in shards)))
    rows = 0
    for index, (source, shard) in enumerate(shards):
        target = folder / shard_name(index, len(shards))
        if not target.exists():
            lost = [(source.first + network, *rest) for network, *rest in shard.diverged]
            blocks = _blocks(source, shard, kinds)
            write_shard(
                target,
                facts,
                index=index,
                num_rows=shard.num_rows,
                blocks=blocks,
                diverged=lost,
            )
        rows += shard.num_rows
        report(rows)


def _common_kinds(zoos: list[Zoo]) -> dict[str, np.dtype]:
    """The type of each column of numbers that holds all zoos' values."""
    tables = [zoo.columns for zoo in zoos if len(zoo)]
    numbers = [n for n in (tables[0] if tables else {}) if tables[0][n].dtype.kind != "U"]
    return {n: np.result_type(*(t[n] for t in tables)) for n in numbers if n not in _ADDED}


def _blocks(source: Source, shard: Shard, kinds: dict[str, np.dtype]) -> Iterator[Block]:
    step = max(1, STREAM_BYTES // max(4 * shard.num_weights, 1))
    for start in range(0, shard.num_rows, step):
        rows = np.arange(start, min(start + step, shard.num_rows))
        weights = np.array(shard.weights[rows[0] : rows[-1] + 1])
        shard.check(rows, weights)
        columns = {name: values[rows] for name, values in shard.columns.items()}
        yield _renumber(source, columns, kinds), weights


def _renumber(source: Source, columns: Columns, kinds: dict[str, np.dtype]) -> Columns:
    before = columns.get(SOURCE)
    names = np.full(len(columns["network"]), source.name)
    if before is not None:  # it was merged itself
        names = np.char.add(f"{source.name}/", before)
    added = {SOURCE: names, SOURCE_NETWORK: columns.get(SOURCE_NETWORK, columns["network"])}
    kept = {name: columns[name] for name in sorted(columns) if name not in {*_ADDED, "checksum"}}
    kept = {name: values.astype(kinds.get(name, values.dtype)) for name, values in kept.items()}
    kept["network"] = kept["network"] + source.first
    return kept | added
