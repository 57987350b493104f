"""Settings that are made in Python: types and ranges are held to, and `help()` tells each field.

What files and flags give is converted before, in `dwf.settings`. No torch is imported here.
"""

import dataclasses
import functools
import inspect
import math
import numbers
import operator
import reprlib
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from dwf.errors import ConfigError, Idle
from dwf.files import MOST_INTEGER
from dwf.settings.marks import Bounds
from dwf.settings.texts import field_texts
from dwf.yaml_files import nearest


class Checked:
    """Base of the dataclasses that hold settings.

    Whoever makes one, each value is held to the type and the range of its field: text for a `Path`
    becomes one, a list for a tuple becomes one, and a whole number for a `float` becomes one.

    Raises:
        ConfigError: a value is of another type, out of its range, or none of those that are
            allowed.
    """

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        if (rules := vars(cls).get("__post_init__")) is not None:
            cls.__post_init__ = _after_types(rules)
        cls.__doc__ = _Doc(vars(cls).get("__doc__"))

    def __post_init__(self):
        hints = _hints(type(self))
        for name, value in list(vars(self).items()):
            declared = _declared(value, hints[name], f"{type(self).__name__}.{name}")
            if declared is not value:
                object.__setattr__(self, name, declared)  # the class is frozen


def refuse_idle(config: Any, *names: str, by: Sequence[str], because: str) -> None:
    """Raise Idle for settings that are given, other than by default, and have no effect.

    Where a file gives them, and a flag one of those that take their effect away,
    `settings.build` leaves them out instead, and warns.

    Args:
        config: the dataclass that is made.
        names: settings of it, also of its parts: `recipe.momentum`; of a part that is not there,
            none is given.
        by: settings of it that take their effect away.
        because: why they have none, with what would give them one.
    """
    found = {name: _value_and_default(config, name) for name in names}
    given = {name: words_of(value) for name, (value, usual) in found.items() if value != usual}
    if given:
        raise Idle(given, by=by, because=because)


def _value_and_default(config: Any, name: str) -> tuple[object, object]:
    """Return a setting's value and its default; None for both, where its part is not there."""
    *parents, last = name.split(".")
    for parent in parents:
        config = vars(config)[parent]
        if config is None:
            return None, None
    default = {field.name: field.default for field in dataclasses.fields(config)}
    return vars(config)[last], default[last]


def need_even(config: Any, *names: str) -> None:
    """Raise ValueError where a whole number of some settings is odd."""
    for name in names:
        if vars(config)[name] % 2:
            raise ValueError(f"{name} = {vars(config)[name]} must be even")


def need_odd(config: Any, *names: str) -> None:
    """Raise ValueError where a whole number of some settings is even."""
    for name in names:
        if vars(config)[name] % 2 == 0:
            raise ValueError(f"{name} = {vars(config)[name]} must be odd")


def words_of(value: object) -> str:
    """Return a setting's value as a file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _after_types(rules: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the rules of a class between its settings, which may take it that types are right."""

    @functools.wraps(rules)
    def check(self: Checked) -> None:
        Checked.__post_init__(self)
        rules(self)

    return check


@functools.lru_cache(None)
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


class _OutOfRange(ConfigError):
    """A number is not within the range of its setting."""


# --- types ---------------------------------------------------------------------------------------


def _declared(value: object, hint: object, name: str) -> object:
    """Return a value as a type declares it.

    Raises:
        ConfigError: it is of another type.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _within(_declared(value, inner[0], name), inner[1:], name)
    if origin in (Union, types.UnionType):
        return _one_of(value, hint, name)
    if origin in (tuple, list) and isinstance(value, (tuple, list, range)):
        every = tuple(_declared(one, inner[0], f"{name}[{i}]") for i, one in enumerate(value))
        is_same = isinstance(value, tuple) and all(map(operator.is_, every, value))
        return value if is_same else every
    if origin is dict and isinstance(value, dict):
        every = {key: _declared(one, inner[1], f"{name}.{key}") for key, one in value.items()}
        return value if all(every[key] is one for key, one in value.items()) else every
    if origin is Literal and value in inner and not isinstance(value, bool):
        return value
    if origin is None and (found := _plain(value, hint)) is not None:
        return found[0]
    raise _other(value, hint, name)


def _within(value: object, marks: Sequence[object], name: str) -> object:
    """Return a value that is in the range of its setting.

    Raises:
        ConfigError: it is not.
    """
    for bounds in (mark for mark in marks if isinstance(mark, Bounds)):
        if value not in bounds:
            raise _OutOfRange(f"{name} = {value!r}: allowed is {bounds.wanted(value)}")
    return value


def _one_of(value: object, hint: object, name: str) -> object:
    out_of_range = None
    for option in typing.get_args(hint):
        try:
            return _declared(value, option, name)
        except _OutOfRange as error:
            out_of_range = error
        except ConfigError as error:
            if str(error).partition(" = ")[0] != name:  # the option fits, but for a part of it
                raise
    if out_of_range is not None:
        raise out_of_range
    if _is_own_part(value) and any(map(dataclasses.is_dataclass, typing.get_args(hint))):
        return value
    raise _other(value, hint, name)


def _is_own_part(value: object) -> bool:
    """Whether a value holds settings of a user's own codec, density, ...: no class of dwf's."""
    is_settings = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_settings and type(value).__module__.partition(".")[0] != "dwf"


def _other(value: object, hint: object, name: str) -> ConfigError:
    """Return an error about a value of another type."""
    choices = [str(one) for one in typing.get_args(hint)]
    close = nearest(value, choices) if isinstance(value, str) else ""
    found = "" if close else f", found {_found(value)}"
    return ConfigError(f"{name} = {reprlib.repr(value)}: expected {_words(hint)}{found}{close}")


def _found(value: object) -> str:
    """Return in words what a value is."""
    if isinstance(value, float) and not math.isfinite(value):
        return "one that is not finite"
    if isinstance(value, int) and not -MOST_INTEGER <= value < MOST_INTEGER:
        return "a whole number of more than 64 bits"
    return type(value).__name__


def _plain(value: object, hint: object) -> tuple[object] | None:
    """Return (value as a plain type or a class declares it,); None where it is of another."""
    is_flag = isinstance(value, bool)
    if hint is Any:
        return (value,)
    if hint in (None, type(None)):
        return (None,) if value is None else None
    if isinstance(value, int) and not -MOST_INTEGER <= value < MOST_INTEGER:
        return None  # more than 64 bits
    if hint is float and isinstance(value, numbers.Real) and not is_flag:
        if not math.isfinite(value):
            return None
        return (value if type(value) is float else float(value),)
    if hint is int and isinstance(value, numbers.Integral) and not is_flag:
        return (value if type(value) is int else int(value),)
    if hint is Path and isinstance(value, str):
        return (Path(value),)
    fits = isinstance(value, hint) and (hint is bool or not is_flag)
    return (value,) if fits else None


def _words(hint: object) -> str:
    """Return a type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _words(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (tuple, list):
        return f"a list of {_words(inner[0])}"
    if origin is dict:
        return f"a dict of {_words(inner[1])}"
    if hint in (None, type(None)):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint)


# --- help ----------------------------------------------------------------------------------------


class _Doc:
    """Docstring of a settings class, to which the texts of its fields are added when it is read."""

    def __init__(self, own: str | None):
        self._own = own

    def __get__(self, instance: object, cls: type) -> str | None:
        # `dataclass` asks whether there is one before it sets this: then no source is read yet.
        if "__match_args__" not in vars(cls) or self._own is None:
            return self._own
        fields = field_texts(cls)
        if not fields:
            return self._own
        lines = (textwrap.indent(f"{name}: {text}", "    ") for name, text in fields.items())
        return "\n".join([inspect.cleandoc(self._own), "", "Attributes:", *lines])
