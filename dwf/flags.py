"""Words of command lines: found before any of them is understood, and told as hints."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def flag_of(argv: Sequence[str], name: str) -> str | None:
    """Return the value of a flag; None where it is not given."""
    for i, word in enumerate(argv):
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None


def name_and_root(folder: Path, parent: str) -> tuple[str, Path]:
    """Return the `--name` and the `--root` of a folder `ROOT/PARENT/NAME`; names may be nested."""
    whole = folder.absolute()
    above = next((path for path in whole.parents if path.name == parent), whole.parent)
    return str(whole.relative_to(above)), above.parent


def making_again(command: str, folder: Path, *, parent: str, records: str = "") -> str:
    """Return the command that makes a folder anew from the settings in it, given in its root.

    Args:
        command: word behind `dwf`.
        folder: `ROOT/PARENT/NAME`.
        parent: name of the folder of its kind.
        records: folder in it that holds the settings; empty: they lie in the folder itself.
    """
    name, _ = name_and_root(folder, parent)
    file = Path(parent) / name / records / "config.yaml"
    return f"dwf {command} --config {shlex.quote(str(file))} --name {shlex.quote(name)}"


def words_naming(folder: Path, parent: str) -> str:
    """Return the words by which a command given here finds a folder, quoted for a shell."""
    name, root = name_and_root(folder, parent)
    where = "" if root == Path.cwd() else f" --root {shlex.quote(str(root))}"
    return f"--name {shlex.quote(name)}{where}"
