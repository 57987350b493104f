"""Words of a command line, before any of it is understood."""

from collections.abc import Sequence


def flag_of(argv: Sequence[str], name: str) -> str | None:
    """Return the value of a flag; None where it is not given."""
    for i, word in enumerate(argv):
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None
