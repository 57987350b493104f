"""The stage that aligns a zoo: one symmetry frame for all its networks."""

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from dwf.align.config import AlignConfig
from dwf.align.matching import match_networks
from dwf.align.reference import Match, find_reference, reference_row
from dwf.align.report import compare_pairs
from dwf.align.shards import Matched, match_shard, write_aligned_shard
from dwf.align.symmetry import Group, symmetry_of
from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.metrics import Progress, logger
from dwf.ranks import world
from dwf.run_folder import RunFolder, hold, replacing
from dwf.zoo.shard import shard_name
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, is_whole, read_facts

PERMUTATIONS = "permutations.h5"


def align_zoo(config: AlignConfig, root: Path, name: str) -> Zoo:
    """Write a zoo's networks, their units reordered to match one reference, as a new zoo.

    Every network keeps its function, its columns and its place. With `scale` set, units are
    rescaled first, and the report's distances to the reference `before` are those of rescaled
    networks. All epochs of a network get the permutation of its last. `permutations.h5` lies beside
    the shards: `network`, and for group g of the architecture `group_g`, int32 of shape [networks,
    units], with `group_g[n, u]` the unit of network n that became its unit u. An interrupted run
    goes on where it was, to the same bytes. Started as several ranks, each aligns shards of its
    own, to the same bytes, too.

    Args:
        config: which zoo, and how.
        root: folder that holds `zoos/`.
        name: name of the zoo written.

    Returns:
        The aligned zoo; `report.read_report` says how much closer its networks came.

    Raises:
        TooFewNetworks: the zoo has no networks, or none to take a reference from.
        ConfigError: the architecture cannot be aligned, or the reference is no training network.
        RunConflict: another zoo, or another alignment, has this name; or another process is at it.
        NotAZoo, IncompleteZoo, CorruptShard: the zoo cannot be read.
    """
    path, ours = Path(root) / "zoos" / name, world()
    with ExitStack() as held:
        begun = ours.on_first(lambda: _begin(config, Path(root), path, held))
        if begun is not None:
            _align(config, path, *begun)
    return ours.on_all(lambda: Zoo.open(path))


def _begin(
    config: AlignConfig, root: Path, path: Path, held: ExitStack
) -> tuple[Zoo, RunFolder] | None:
    """Hold the aligned zoo's run folder and write what does not depend on the weights.

    Returns:
        The zoo to align, no weight of it read, and the run: other ranks get them from the first.
        None where the aligned zoo is finished already.
    """
    zoo = Zoo.open(root / "zoos" / config.zoo)
    _refuse_other_zoo(path, zoo)
    if not len(zoo):
        raise TooFewNetworks(f"{zoo.path} holds no networks: train some with launch/zoo.py")
    symmetry_of(zoo.build_network(), zoo.layout, config.scale)  # or it cannot be aligned
    first = reference_row(zoo, config)
    held.enter_context(hold(path / "run"))
    run = RunFolder(path / "run", config)
    if run.summary is not None and is_whole(path) and (path / PERMUTATIONS).exists():
        logger.info("zoo %s is finished already: %s", path.name, path)
        return None
    for leftover in path.glob("*.partial-*"):  # of an attempt that was killed
        leftover.unlink()
    create_zoo(path, zoo.layout, len(zoo.shards), **_facts(zoo, config, first))
    return zoo, run


def _align(config: AlignConfig, path: Path, zoo: Zoo, run: RunFolder) -> None:
    """Match and write all shards, each by one rank; the first closes the zoo and reports."""
    groups = symmetry_of(zoo.build_network(), zoo.layout, config.scale)
    match: Match = functools.partial(
        match_networks,
        layout=zoo.layout,
        groups=groups,
        max_sweeps=config.max_sweeps,
        seed=config.seed,
    )
    reference_D = find_reference(zoo, groups, match, config, run.checkpoints / "reference.pt")
    parts = _align_shards(zoo, path, groups, match, reference_D, run)

    def close() -> None:
        matched = Matched.join(parts)
        _write_permutations(path / PERMUTATIONS, groups, matched)
        pairs = compare_pairs(zoo, finish_zoo(path), config.num_pairs, config.seed)
        run.finish(**_closeness(matched), **pairs)

    world().on_first(close)


def _refuse_other_zoo(path: Path, zoo: Zoo) -> None:
    if path.resolve() == zoo.path.resolve():
        raise ConfigError(f"{path} is the zoo to align: give the aligned one another --name")
    if (path / "zoo.json").exists() and not (path / "run").exists():
        raise RunConflict(f"{path} is another zoo: give another --name, or remove the folder")
    if (path / "zoo.json").exists():
        old = read_facts(path)["provenance"].get("fingerprint", zoo.fingerprint)
        if old != zoo.fingerprint:
            raise RunConflict(
                f"{path} was aligned from a zoo {zoo.name} of fingerprint {old}, which now has "
                f"{zoo.fingerprint}: give another --name, or remove the folder"
            )


def _facts(zoo: Zoo, config: AlignConfig, first: int) -> dict[str, Any]:
    """What `zoo.json` says: as the zoo's own, but for where the rows came from."""
    own = {"format", "version", "num_shards", "layout"}
    provenance = {
        "aligned_from": zoo.name,
        "fingerprint": zoo.fingerprint,
        "method": config.method,
        "scale": config.scale,
        "reference": config.reference,
        "reference_network": int(zoo.columns["network"][first]),
        "seed": config.seed,
    }
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
            file[f"group_{g}"].attrs["axes"] = [f"{name}[{axis}]" for name, axis in group.members]


def _closeness(matched: Matched) -> dict[str, Any]:
    means = {"l2_to_reference": matched.distance_M2, "cosine_to_reference": matched.cosine_M2}
    return {"networks": len(matched.network_M)} | {
        key: dict(zip(("before", "after"), values_M2.mean(0).tolist(), strict=True))
        for key, values_M2 in means.items()
    }
