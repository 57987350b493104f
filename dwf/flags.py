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


def without(argv: Sequence[str], name: str) -> list[str]:
    """Return the arguments without a flag and its value."""
    left, words = [], iter(argv)
    for word in words:
        if word == name:
            next(words, None)
        elif not word.startswith(f"{name}="):
            left.append(word)
    return left


def values_of(argv: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Return the values of a flag that takes several, and the arguments without them.

    Args:
        argv: words of a command line.
        name: the flag; given more than once, the values of all count.
    """
    values: list[str] = []
    left: list[str] = []
    takes = False
    for word in argv:
        if word.startswith("-"):
            flag, _, value = word.partition("=")
            takes = word == name
            if flag == name:
                values += [value] if value else []
            else:
                left.append(word)
        else:
            (values if takes else left).append(word)
    return values, left
