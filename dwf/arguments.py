"""How arguments of a command stand on its command line: marks that import no parser.

A command's function carries them in its annotations, so that it can be imported and called where
tyro, the parser, is not installed: that is imported by `call_with_words` alone.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dwf.plain import Json


@dataclass(frozen=True)
class Argument:
    """A mark within `Annotated`; several marks of one argument add up."""

    metavar: str | None = None
    """Word for a value in the help; None: by the type."""
    name: str | None = None
    """Name of the flag, if it is not the parameter's; of settings, the prefix of their flags."""
    is_positional: bool = False
    """Whether the value stands without a flag."""
    is_repeated: bool = False
    """Whether the flag is given once for each value."""


POSITIONAL = Argument(is_positional=True)
REPEATED = Argument(is_repeated=True)


def call_with_words(call: Callable[..., Json], words: Sequence[str], *, program: str) -> Json:
    """Call a function with arguments read from words, by its signature, marks and docstring.

    Args:
        call: the function.
        words: the command line behind the program's name.
        program: that name, for the help.

    Returns:
        What the function returns.
    """
    import tyro

    # A function of its own: the annotations of `call` stay as they are.
    def marked(*given: Json, **named: Json) -> Json:
        return call(*given, **named)

    hints = typing.get_type_hints(call, include_extras=True)
    marked.__name__, marked.__doc__ = call.__name__, call.__doc__
    marked.__annotations__ = {name: _for_parser(hint) for name, hint in hints.items()}
    marked.__signature__ = inspect.signature(call)
    return tyro.cli(marked, args=list(words), prog=program)


def _for_parser(hint: object) -> object:
    """Return an annotation with tyro's marks in place of ours."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint
    from tyro import conf

    bare, *marks = typing.get_args(hint)
    theirs: list[object] = []
    for mark in marks:
        if mark.is_positional:
            theirs.append(conf.Positional)
        if mark.is_repeated:
            theirs.append(conf.UseAppendAction)
        if mark.metavar is not None or mark.name is not None:
            theirs.append(conf.arg(metavar=mark.metavar, name=mark.name))
    return typing.Annotated[(bare, *theirs)]
