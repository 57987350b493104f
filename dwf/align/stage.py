"""The stage that aligns a zoo: one symmetry frame for all its networks."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

from dwf.align.config import AlignConfig
from dwf.align.frame import Match, groups_of, matcher_of, verified_groups
from dwf.align.groups import Group
from dwf.align.reference import find_reference, reference_row, refuse_other_architecture
from dwf.align.report import compare_pairs
from dwf.align.shards import Matched, match_shard, write_aligned_shard
from dwf.align.symmetry import describe
from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.metrics import Progress, logger
from dwf.ranks import world
from dwf.run_folder import RunFolder, hold, replacing
from dwf.zoo.shard import shard_name
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, is_whole, read_facts

PERMUTATIONS = "permutations.h5"


def plan(config: AlignConfig, root: Path, name: str) -> str:
    """Return what `align_zoo` would do: which zoo becomes which, and what can be reordered."""
    path = Path(root) / "zoos" / config.zoo
    where = f"{path} -> {path.with_name(name)}"
    if not (path / "zoo.json").exists():
        return f"{where}\nthat zoo is not there yet, so no groups are known"
    zoo = Zoo.open(path)
    groups = groups_of(zoo, config.scale, config.signs)
    return f"{where}\n{len(zoo)} rows; {describe(groups)}"


def align_zoo(config: AlignConfig, root: Path, name: str) -> Zoo:
    """Write a zoo's networks, their units reordered to match one reference, as a new zoo.

    Every network keeps its function, its columns and its place. With `scale` set, units are
    rescaled first, and the report's distances to the reference `before` are those of rescaled
    networks. All epochs of a network get the permutation of its last. `permutations.h5` lies beside
    the shards: `network`, and for group g of the architecture `group_g`, int32 of shape [networks,
    units], with `group_g[n, u]` the unit of network n that became its unit u (~unit where its sign
    was flipped too). An interrupted run goes on where it was, to the same bytes. Started as several
    ranks, each aligns shards of its own, to the same bytes, too.

    Args:
        config: which zoo, and how.
        root: folder that holds `zoos/`.
        name: name of the zoo written.

    Returns:
        The aligned zoo; `report.read_report` says how much closer its networks came.

    Raises:
        TooFewNetworks: the zoo has no networks, or none to take a reference from.
        ConfigError: the architecture cannot be aligned, the reference is no training network, or
            settings contradict each other.
        ShapeMismatch: the reference is of another architecture.
        RunConflict: another zoo, or another alignment, has this name; or another process is at it.
        NotAZoo, IncompleteZoo, CorruptShard: the zoo cannot be read.
    """
    path, ours = Path(root) / "zoos" / name, world()
    with ExitStack() as held:
        begun = ours.on_first(lambda: _begin(config, Path(root), path, held))
        if begun is not None:
            _align(config, path, begun)
    return ours.on_all(lambda: Zoo.open(path))


class _Begun(NamedTuple):
    """Everything that an alignment begins with."""

    zoo: Zoo
    """The zoo to align, no weight of it read."""
    source: Zoo
    """That of the reference."""
    run: RunFolder
    groups: tuple[Group, ...]
    deviation: float
    """How far permutations of all groups change the function."""


def _begin(config: AlignConfig, root: Path, path: Path, held: ExitStack) -> _Begun | None:
    """Hold the aligned zoo's run folder and write what does not depend on the weights.

    Returns:
        What other ranks get from the first; None where the aligned zoo is finished already.
    """
    zoo = Zoo.open(root / "zoos" / config.zoo)
    source = _source(zoo, config, root)
    _refuse_other_zoo(path, zoo, source)
    if not len(zoo):
        raise TooFewNetworks(f"{zoo.path} holds no networks: train some with launch/zoo.py")
    first = reference_row(source, config)
    groups, deviation = verified_groups(zoo, config)  # or it cannot be aligned
    held.enter_context(hold(path / "run"))
    run = RunFolder(path / "run", config)
    if run.summary is not None and is_whole(path) and (path / PERMUTATIONS).exists():
        logger.info("zoo %s is finished already: %s", path.name, path)
        return None
    for leftover in path.glob("*.partial-*"):  # of an attempt that was killed
        leftover.unlink()
    create_zoo(path, zoo.layout, len(zoo.shards), **_facts(zoo, source, config, first))
    return _Begun(zoo, source, run, groups, deviation)


def _align(config: AlignConfig, path: Path, begun: _Begun) -> None:
    """Match and write all shards, each by one rank; the first closes the zoo and reports."""
    zoo, source, run, groups, deviation = begun
    match = matcher_of(zoo, groups, config)
    kept = run.checkpoints / "reference.pt"
    reference_D = find_reference(zoo, source, groups, match, config, kept)
    parts = _align_shards(zoo, path, groups, match, reference_D, run)

    def close() -> None:
        matched = Matched.join(parts)
        _write_permutations(path / PERMUTATIONS, groups, matched)
        pairs = compare_pairs(zoo, finish_zoo(path), config.num_pairs, config.seed)
        run.finish(**_closeness(matched), **pairs, symmetry_deviation_below=deviation)

    world().on_first(close)


def _source(zoo: Zoo, config: AlignConfig, root: Path) -> Zoo:
    """The zoo that the reference network is taken from."""
    if config.reference_zoo is None:
        return zoo
    source = Zoo.open(root / "zoos" / config.reference_zoo)
    refuse_other_architecture(zoo, source)
    return source


def _refuse_other_zoo(path: Path, zoo: Zoo, source: Zoo) -> None:
    if path.resolve() == zoo.path.resolve():
        raise ConfigError(f"{path} is the zoo to align: give the aligned one another --name")
    if not (path / "zoo.json").exists():
        return
    if not (path / "run").exists():
        raise RunConflict(f"{path} is another zoo: give another --name, or remove the folder")
    before = read_facts(path)["provenance"]
    used = [("from a zoo", zoo, "fingerprint")]
    if source is not zoo:
        used.append(("to a reference of a zoo", source, "reference_fingerprint"))
    for words, now, key in used:
        if before.get(key, now.fingerprint) != now.fingerprint:
            raise RunConflict(
                f"{path} was aligned {words} {now.name} of fingerprint {before[key]}, which now "
                f"has {now.fingerprint}: give another --name, or remove the folder"
            )


def _facts(zoo: Zoo, source: Zoo, config: AlignConfig, first: int) -> dict[str, Any]:
    """Return the facts of the aligned zoo: the zoo's own, but for where the rows came from."""
    own = {"format", "version", "num_shards", "layout"}
    provenance = {
        "aligned_from": zoo.name,
        "fingerprint": zoo.fingerprint,
        "method": config.method,
        "scale": config.scale,
        "reference": config.reference,
        "reference_network": int(source.columns["network"][first]),
        "seed": config.seed,
    }
    if config.signs:
        provenance["signs"] = True
    if source is not zoo:
        provenance |= {"reference_zoo": source.name, "reference_fingerprint": source.fingerprint}
    if zoo.facts.get("provenance"):
        provenance["before"] = zoo.facts["provenance"]
    kept = {key: value for key, value in zoo.facts.items() if key not in own}
    return kept | {"provenance": provenance}


def _align_shards(
    zoo: Zoo,
    path: Path,
    groups: Sequence[Group],
    match: Match,
    reference_D: torch.Tensor,
    run: RunFolder,
) -> list[Matched]:
    """Return how the networks of each shard were matched; on other ranks than the first, none."""

    def align_shard(index: int) -> Matched:
        target = path / shard_name(index, len(zoo.shards))
        file = run.checkpoints / f"matched-{index:05d}.npz"
        if file.exists():
            matched = Matched.load(file, len(groups))
        else:
            matched = match_shard(zoo, index, groups, match, reference_D)
            matched.save(file)
        if not target.exists():
            write_aligned_shard(zoo, index, groups, matched, target)
        return matched

    parts = world().to_first(len(zoo.shards), align_shard)
    kept = []
    with Progress(f"align {zoo.name}", len(zoo), "rows") as progress:
        for shard, matched in zip(zoo.shards, parts, strict=True):
            progress.update(progress.done + shard.num_rows)
            kept += [matched] if matched is not None else []
    return kept


def _write_permutations(path: Path, groups: Sequence[Group], matched: Matched) -> None:
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file["network"] = matched.network_M.astype(np.int64)
        for g, (group, order_NU) in enumerate(zip(groups, matched.orders, strict=True)):
            file[f"group_{g}"] = order_NU
            attributes = file[f"group_{g}"].attrs
            attributes["kind"] = group.kind
            attributes["axes"] = [f"{member.name}[{member.axis}]" for member in group.members]
            attributes["members"] = json.dumps([asdict(member) for member in group.members])
            if group.parent is not None:
                attributes["parent"], attributes["place"] = group.parent, group.place


def _closeness(matched: Matched) -> dict[str, Any]:
    means = {"l2_to_reference": matched.distance_M2, "cosine_to_reference": matched.cosine_M2}
    return {"networks": len(matched.network_M)} | {
        key: dict(zip(("before", "after"), values_M2.mean(0).tolist(), strict=True))
        for key, values_M2 in means.items()
    }
