"""Words that name settings files: a path, or the name of a preset that comes with dwf."""

import difflib
import os
from pathlib import Path

from dwf.errors import ConfigError
from dwf.names import expanded
from dwf.shipped import CONFIGS
from dwf.yaml_files import nearest

_LISTED = 5


def presets(command: str) -> list[str]:
    """Return the names of a command's presets, in order: `digits_4096`, `families/mlps_digits`."""
    folder = CONFIGS / command
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def find_file(word: str | Path, command: str, *, folder: Path | None = None) -> Path:
    """Return the settings file that a word names.

    Args:
        word: a path (`~` is the home folder), or the name of a preset.
        command: the command whose presets are meant.
        folder: folder that the path is relative to; default: the current one.

    Raises:
        ConfigError: there is no such file and no such preset; names those that look like it.
    """
    path = Path(os.path.normpath((folder or Path()) / expanded(word)))
    if path.is_file():
        return path
    shipped = _shipped(str(word), command)
    if shipped is not None:
        return shipped
    if not command or len(Path(word).parts) > 1 or path.suffix:
        siblings = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{nearest(str(path), siblings)}")
    close = difflib.get_close_matches(str(word), presets(command), n=_LISTED, cutoff=0.5)
    meant = f"did you mean {', '.join(close)}? " if close else ""
    raise ConfigError(
        f"{word}: no such file, nor a preset of dwf {command}; {meant}"
        f"dwf {command} --help lists all"
    )


def named(word: str, command: str, *, folder: Path) -> str:
    """Return a word that names the same settings file from any folder, and in any installation.

    That is a preset's name, or the absolute path of another file.

    Args:
        word: as in a settings file or a flag.
        command: the command whose presets are meant.
        folder: folder that the word is relative to.

    Raises:
        ConfigError: as in `find_file`, but not of an absolute path, as records hold: who reads the
            file finds out.
    """
    if Path(word).is_absolute() and not Path(word).exists():
        return word
    file = Path(os.path.abspath(find_file(word, command, folder=folder)))
    own = CONFIGS.resolve() / command
    if file.resolve().is_relative_to(own):
        return file.resolve().relative_to(own).with_suffix("").as_posix()
    return str(file)


def _shipped(word: str, command: str) -> Path | None:
    """Return the preset of a name, or of its place in a checkout, `configs/zoo/NAME.yaml`."""
    parts = Path(word).parts
    in_checkout = CONFIGS.joinpath(*parts[1:]) if parts[:1] == ("configs",) else None
    for file in (CONFIGS / command / f"{word}.yaml", in_checkout):
        if file is not None and file.is_file():
            return file
    return None
