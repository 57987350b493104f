"""The stage that exports networks of a zoo: a folder of files that other tools load.

    FOLDER/export.json      what the files are; written first
    FOLDER/...              the files of the format

Nothing of host or time is in the folder, and a lock only while it is written: it can be passed on
as it is, and equal exports are equal files.
"""

import json
from pathlib import Path

from dwf import preemption
from dwf.errors import RunConflict
from dwf.exporters.config import EXPORTERS, ExportConfig
from dwf.exporters.exporter import Exporter
from dwf.exporters.selection import refuse_not_finite, rows_of
from dwf.files import read_json
from dwf.metrics import Progress, logger
from dwf.names import folder_in
from dwf.plain import Json
from dwf.run_folder import LEFTOVERS, LOCK, hold, sweep, write_json
from dwf.same_settings import differences
from dwf.settings import find
from dwf.zoo.network_files import INDEX
from dwf.zoo.store import Zoo

FORMAT, VERSION = "dwf-export", 1


def plan(config: ExportConfig, root: Path, *, name: str) -> str:
    """Return in words what `export_networks` would write, and where."""
    path, folder = Path(root) / "zoos" / config.zoo, folder_of(config, root, name=name)
    where = f"{config.format}: {path} -> {folder}"
    if not (path / "zoo.json").exists():
        return f"{where}\nthat zoo is not there yet, so nothing is known of its networks"
    exporter = _exporter(config, Zoo.open(path))
    return f"{where}\n{len(exporter.rows_R)} networks in {len(exporter.files)} files"


def export_networks(config: ExportConfig, root: Path | str, *, name: str) -> Path:
    """Write networks of the zoo `root/zoos/ZOO` in a format that other tools load.

    An interrupted export resumes.

    Args:
        config: which networks, in which format, where to.
        root: folder that holds `zoos/`.
        name: name of the folder under `root/exports`, if the settings give none.

    Returns:
        The folder.

    Raises:
        ConfigError: no such rows, or the format does not take these networks.
        CorruptShard: a row has weights that are not finite, or does not match its checksum.
        RunConflict: the folder holds another export, or something else; or another process is at
            it.
    """
    root = Path(root)
    zoo, folder = Zoo.open(Path(root) / "zoos" / config.zoo), folder_of(config, root, name=name)
    exporter = _exporter(config, zoo)
    index = _index(config, exporter)
    _refuse_other(folder, index)
    if _is_whole(folder, exporter):
        logger.info("export %s is finished already: %s", folder.name, folder)
        return folder
    if not config.not_finite:
        refuse_not_finite(zoo, exporter.rows_R)
    with hold(folder):
        sweep(folder.rglob(LEFTOVERS))
        write_json(folder / INDEX, index)
        with Progress(f"export {zoo.name}", len(exporter.rows_R), unit="networks") as progress:
            for done in exporter.write(folder):
                progress.update(done)
                if preemption.is_asked():
                    preemption.stop()
        (folder / LOCK).unlink(
            missing_ok=True
        )  # what is whole has no writer: nothing of this machine stays
    return folder


def report(folder: Path) -> None:
    """Print what `export_networks` wrote."""
    told = read_json(folder / INDEX, keys=("rows", "zoo", "kind"))
    print(f"{len(told['rows'])} networks of {told['zoo']} as {told['kind']} in {folder}")


def folder_of(config: ExportConfig, root: Path, *, name: str) -> Path:
    """Return the folder that an export is written to."""
    return folder_in(Path(root) / "exports", name) if config.to is None else Path(config.to)


def _exporter(config: ExportConfig, zoo: Zoo) -> Exporter:
    return find(EXPORTERS, config.format)(config, zoo, rows_R=rows_of(config, zoo))


def _index(config: ExportConfig, exporter: Exporter) -> dict[str, Json]:
    """Return what the folder says of itself: all that its bytes follow from."""
    zoo = exporter.zoo
    head = {"format": FORMAT, "version": VERSION, "kind": config.format}
    source = {"zoo": zoo.name, "fingerprint": zoo.fingerprint, "rows": exporter.rows_R.tolist()}
    return head | source | exporter.told


def _refuse_other(folder: Path, index: dict[str, Json]) -> None:
    """Refuse a folder that holds something else than this export."""
    if folder.is_file():
        raise RunConflict(f"{folder} is a file, expected a folder: give another by --to")
    if (folder / INDEX).exists():
        found = read_json(folder / INDEX)
        for key, before, now in differences(found, json.loads(json.dumps(index))):
            raise RunConflict(
                f"{folder} holds an export with {key} = {_short(before)}, this one has "
                f"{_short(now)}: give another folder by --to, or remove this one"
            )
        return
    others = sorted(file.name for file in folder.iterdir()) if folder.exists() else []
    others = [name for name in others if name != LOCK and ".partial-" not in name]
    if others:
        raise RunConflict(
            f"{folder} holds {others[0]}, and is no export: give a new folder by --to"
        )


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _is_whole(folder: Path, exporter: Exporter) -> bool:
    there = folder / INDEX
    return there.exists() and all((folder / name).exists() for name in exporter.files)
