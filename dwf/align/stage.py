"""The stage that aligns a zoo: one symmetry frame for all its networks."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dwf.align.config import AlignConfig
from dwf.align.frame import Match, groups_of, matcher_of, verified_groups
from dwf.align.groups import Group
from dwf.align.reference import find_reference, reference_row, refuse_other_architecture
from dwf.align.report import compare_pairs, print_report, read_report
from dwf.align.shards import Matched, match_shard, write_aligned_shard
from dwf.align.symmetry import describe
from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.metrics import Progress
from dwf.names import folder_in
from dwf.networks.held import floats_of
from dwf.plain import Json
from dwf.ranks import world
from dwf.run_folder import RunFolder, replacing
from dwf.stages import stage
from dwf.zoo.constants import refuse_varying_constants
from dwf.zoo.facts import Facts
from dwf.zoo.hdf5 import made_in_memory
from dwf.zoo.provenance import Aligned
from dwf.zoo.shard import shard_name
from dwf.zoo.store import ZOO, Zoo, create_zoo, finish_zoo, is_whole

PERMUTATIONS = "permutations.h5"
ALIGNED = replace(ZOO, is_whole=lambda path: is_whole(path) and (path / PERMUTATIONS).exists())


def plan(config: AlignConfig, root: Path, *, name: str) -> str:
    """Return what `align_zoo` would do: which zoo becomes which, and what can be reordered."""
    path = _folder(root, config.zoo)
    where = f"{path} -> {_folder(root, name)}"
    if not (path / "zoo.json").exists():
        return f"{where}\nthat zoo is not there yet, so no groups are known"
    zoo = Zoo.open(path)
    groups = groups_of(zoo, config.scale, signs=config.signs)
    return f"{where}\n{len(zoo)} rows; {describe(groups)}"


def align_zoo(config: AlignConfig, root: Path | str, *, name: str) -> Zoo:
    """Write a zoo's networks, their units reordered to match one reference, as a new zoo.

    Every network keeps its function, its columns and its place. With `scale` set, units are
    rescaled first, and the report's distances to the reference `before` are those of rescaled
    networks. All epochs of a network get the permutation of its last. `permutations.h5` lies beside
    the shards: `network`, and for group g of the architecture `group_g`, int32 of shape [networks,
    units], with `group_g[n, u]` the unit of network n that became its unit u (~unit where its sign
    was flipped too). An interrupted run resumes, to the same bytes. Started as several
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
    root = Path(root)
    path, ours = _folder(root, name), world()
    zoo, source = ours.on_all(_open, config, root, path)
    groups, deviation = ours.on_first(_verified, config, zoo, source)
    refuse = partial(_refuse_other_zoo, zoo=zoo, source=source)
    with stage(ALIGNED, path, config=config, refuse_other=refuse, ours=ours) as run:
        if run is not None:
            ours.on_first(_create, config, path, zoo, source)
            match = matcher_of(zoo, groups, config=config)
            kept = run.checkpoints / "reference.pt"
            reference_D = find_reference(
                zoo, source, groups=groups, match=match, config=config, file=kept
            )
            parts = _align_shards(zoo, path, groups, match, reference_D, run)

            @ours.on_first
            def close() -> None:
                matched = Matched.join(parts)
                _write_permutations(path / PERMUTATIONS, groups, matched)
                pairs = compare_pairs(
                    zoo, finish_zoo(path), num_pairs=config.num_pairs, seed=config.seed
                )
                run.finish(**_closeness(matched), **pairs, symmetry_deviation_below=deviation)

    return ours.on_all(Zoo.open, path)


def report(zoo: Zoo) -> None:
    """Print what `align_zoo` made: how much closer its networks came, and where they are."""
    print_report(read_report(zoo))
    print(f"{len(zoo)} rows in {zoo.path}")


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "zoos", name)


def _open(config: AlignConfig, root: Path, path: Path) -> tuple[Zoo, Zoo]:
    """Open the zoo to align and that of the reference; no weight of them is read."""
    zoos = root / "zoos"
    zoo = Zoo.open(zoos / config.zoo)
    if path.resolve() == zoo.path.resolve():
        raise ConfigError(f"{path} is the zoo to align: give the aligned one another --name")
    return zoo, zoo if config.reference_zoo is None else Zoo.open(zoos / config.reference_zoo)


def _verified(config: AlignConfig, zoo: Zoo, source: Zoo) -> tuple[tuple[Group, ...], float | None]:
    """Refuse what cannot be aligned, before anything is written.

    Returns:
        The groups, and how far permutations of all of them change the function, None where nobody
        can run it.
    """
    if source is not zoo:
        refuse_other_architecture(zoo, source)
    if not len(zoo):
        raise TooFewNetworks(f"{zoo.path} holds no networks: train some with dwf zoo")
    reference_row(source, config)
    if zoo.layout.constants:  # by which units are told apart, as the network is built
        built_D = zoo.layout.flatten(floats_of(zoo.build_network())).numpy()
        for one in (zoo, source):
            refuse_varying_constants(one, np.arange(len(one)), like_D=built_D)
    return verified_groups(zoo, config)


def _create(config: AlignConfig, path: Path, zoo: Zoo, source: Zoo) -> None:
    provenance = _provenance(zoo, source, config, reference_row(source, config))
    create_zoo(path, replace(zoo.facts, provenance=provenance))


def _refuse_other_zoo(run: RunFolder, zoo: Zoo, source: Zoo) -> None:
    """Refuse an aligned zoo of other networks, or of another reference, than are there now."""
    path = run.path.parent
    if not (path / "zoo.json").exists():
        return
    before = Facts.read(path).aligned
    if before is None:
        return
    used = [("from a zoo", zoo, before.fingerprint)]
    if source is not zoo:
        used.append(("to a reference of a zoo", source, before.reference_fingerprint))
    for words, now, then in used:
        if then not in (None, now.fingerprint):
            raise RunConflict(
                f"{path} was aligned {words} {now.name} of fingerprint {then}, which now "
                f"has {now.fingerprint}: give another --name, or remove the folder"
            )


def _provenance(zoo: Zoo, source: Zoo, config: AlignConfig, first: int) -> Aligned:
    is_other = source is not zoo
    return Aligned(
        aligned_from=config.zoo,
        fingerprint=zoo.fingerprint,
        method=config.method,
        scale=config.scale,
        reference=config.reference,
        reference_network=int(source.columns["network"][first]),
        seed=config.seed,
        signs=config.signs,
        reference_zoo=source.name if is_other else None,
        reference_fingerprint=source.fingerprint if is_other else None,
        before=zoo.facts.provenance,
    )


def _align_shards(
    zoo: Zoo,
    path: Path,
    groups: Sequence[Group],
    match: Match,
    reference_D: torch.Tensor,
    run: RunFolder,
) -> list[Matched]:
    """Return how the networks of each shard were matched; on other ranks than the first, none."""
    facts = Facts.read(path)

    def align_shard(index: int) -> Matched:
        target = path / shard_name(index, len(zoo.shards))
        file = run.checkpoints / f"matched-{index:05d}.npz"
        if file.exists():
            matched = Matched.load(file, len(groups))
        else:
            matched = match_shard(zoo, index, groups=groups, match=match, reference_D=reference_D)
            matched.save(file)
        if not target.exists():
            write_aligned_shard(
                zoo, index, facts=facts, groups=groups, matched=matched, path=target
            )
        return matched

    parts = world().to_first(len(zoo.shards), align_shard)
    kept = []
    with Progress(f"align {zoo.name}", len(zoo), unit="rows") as progress:
        for shard, matched in zip(zoo.shards, parts, strict=True):
            progress.update(progress.done + shard.num_rows)
            kept += [matched] if matched is not None else []
    return kept


def _write_permutations(path: Path, groups: Sequence[Group], matched: Matched) -> None:
    with replacing(path) as partial, made_in_memory(partial) as file:
        file["network"] = matched.network_M.astype(np.int64)
        for g, (group, order_NU) in enumerate(zip(groups, matched.orders, strict=True)):
            file[f"group_{g}"] = order_NU
            attributes = file[f"group_{g}"].attrs
            attributes["kind"] = group.kind
            attributes["axes"] = [f"{member.name}[{member.axis}]" for member in group.members]
            attributes["members"] = json.dumps([asdict(member) for member in group.members])
            if group.parent is not None:
                attributes["parent"], attributes["place"] = group.parent, group.place


def _closeness(matched: Matched) -> dict[str, Json]:
    means = {"l2_to_reference": matched.distance_M2, "cosine_to_reference": matched.cosine_M2}
    return {"networks": len(matched.network_M)} | {
        key: dict(zip(("before", "after"), values_M2.mean(0).tolist(), strict=True))
        for key, values_M2 in means.items()
    }
