"""Alignment of what a name stands for: a zoo, or each of the zoos of a manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dwf.align import stage as one
from dwf.align.config import AlignConfig
from dwf.errors import ConfigError
from dwf.names import folder_in
from dwf.ranks import world
from dwf.stages import stage
from dwf.zoo.manifest import members_of, read_manifest, write_manifest
from dwf.zoo.store import FAMILY, Zoo


def plan(config: AlignConfig, root: Path, *, name: str) -> str:
    """Return what `align_zoos` would do, zoo by zoo."""
    if read_manifest(Path(root) / "zoos" / config.zoo) is None:
        return one.plan(config, root, name=name)
    plans = [one.plan(each, root, name=own) for _, each, own in _members(config, root, name)]
    return "\n".join([*plans, f"{len(plans)} aligned zoos -> {Path(root) / 'zoos' / name}"])


def align_zoos(config: AlignConfig, root: Path, *, name: str) -> tuple[Zoo, ...]:
    """Align a zoo, or each zoo of a manifest in a frame of its own, and name them together.

    For a manifest, each aligned zoo is `root/zoos/NAME-LABEL`, and `root/zoos/NAME` is the manifest
    of them. Run again, it resumes from what it finds; several ranks do so together.

    Args:
        config: which zoo or manifest, and how.
        root: folder that holds `zoos/`.
        name: name of what is written.

    Returns:
        The aligned zoos, in order.

    Raises:
        ConfigError: `reference_zoo` is set, whose networks are of one architecture; or see
            `align_zoo`.
        DwfError: see `align_zoo` and `write_manifest`.
    """
    if read_manifest(Path(root) / "zoos" / config.zoo) is None:
        return (one.align_zoo(config, root, name=name),)
    members, ours = list(_members(config, root, name)), world()
    folder = folder_in(Path(root) / "zoos", name)
    with stage(FAMILY, folder, config=config, ours=ours) as run:
        if run is not None:
            beside = {label: Path(own).name for label, _, own in members}
            ours.on_first(write_manifest, folder, beside)
        zoos = [one.align_zoo(each, root, name=own) for _, each, own in members]
        if run is not None:
            told = {label: len(zoo) for (label, _, _), zoo in zip(members, zoos, strict=True)}
            ours.on_first(run.finish, rows=told)
    return tuple(zoos)


def report(zoos: Sequence[Zoo]) -> None:
    """Print what `align_zoos` made."""
    for zoo in zoos:
        one.report(zoo)


def _members(config: AlignConfig, root: Path, name: str) -> Iterator[tuple[str, AlignConfig, str]]:
    """Yield label, settings and name of each alignment that the zoos of a manifest need."""
    if config.reference_zoo is not None:
        raise ConfigError(
            f"reference_zoo = {config.reference_zoo!r}: the zoos of {config.zoo} are of several "
            "architectures, and a reference is of one: leave it out, or align one zoo at a time"
        )
    for label, zoo in members_of(Path(root) / "zoos", config.zoo).items():
        yield label, replace(config, zoo=zoo), f"{name}-{label}"
