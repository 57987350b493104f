"""Settings objects from plain data, strictly; every fault of the data is told at once."""

import contextlib
import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from dwf.errors import ConfigError, Idle
from dwf.files import MOST_INTEGER
from dwf.metrics import logger
from dwf.names import NAME_WANTED, why_no_name
from dwf.plain import Json, visible
from dwf.settings.marks import Bounds, FolderName, Preset, PresetsByKey
from dwf.settings.presets import named, presets
from dwf.shipped import CONFIGS
from dwf.systems import NO_MPS
from dwf.yaml_files import nearest

T = TypeVar("T")
COMMAND_LINE = "command line"
"""Stands in the place of a file's name where a flag gives a setting."""


@dataclass(frozen=True)
class Origins:
    """Which file says a setting, and where."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Dotted key -> the file that holds it."""
    lines: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """File -> dotted key, also `key[0]` -> the line that it stands in, the first being 1."""


@dataclass(frozen=True)
class _IdleSettings:
    """Settings of some data that have no effect beside others."""

    keys: tuple[str, ...]
    """Their dotted keys."""
    by: tuple[str, ...]
    """Dotted keys of the settings that take their effect away."""
    words: str
    """Sentence that says why they have none."""


class Faults(Exception):
    """Sentences about what is wrong with some data."""

    def __init__(self, *sentences: str, idle: tuple[_IdleSettings, ...] = ()):
        super().__init__("\n".join(sentences))
        self.sentences = sentences
        self.idle = idle


def build(
    cls: type[T],
    data: Json,
    *,
    source: str,
    origins: Origins | None = None,
    key: str = "",
    over: Collection[str] = (),
) -> T:
    """Make a settings object from plain data, strictly.

    A setting to which another leaves no effect is a fault; but where a file says it, and a flag the
    other, it has its default, with a warning.

    Args:
        cls: a frozen dataclass, or another type that a setting can have.
        data: nested dictionaries, lists and scalars, as YAML gives them.
        source: the file's name, for errors.
        origins: files and lines of the settings, where they are known.
        key: where in the file the data stand, for errors.
        over: dotted keys that flags said, or whatever else is laid over a file.

    Raises:
        ConfigError: unknown key, wrong type, value not allowed or a required key missing; has a
            line for each such fault, which names the source, the line in it, the dotted key, the
            value, what is allowed and the nearest name.
    """
    return build_over(cls, data, source=source, origins=origins, key=key, over=over)[0]


def build_over(
    cls: type[T],
    data: Json,
    *,
    source: str,
    origins: Origins | None = None,
    key: str = "",
    over: Collection[str],
) -> tuple[T, Json]:
    """Return a settings object, and its data without what has no effect; see `build`."""
    where = _Source(source, origins or Origins())
    overruled: list[_IdleSettings] = []
    while True:
        try:
            made = _convert(data, cls, where, key)
            break
        except Faults as faults:
            new = [idle for idle in faults.idle if _is_overruled(idle, over)]
            before = data
            for each in (name for idle in new for name in idle.keys):
                data = _without(data, each)
            if data == before:
                raise ConfigError(str(faults)) from None
            overruled += new
    for idle in overruled:
        _warn_once(f"{where.file_of(idle.keys[0])}: {idle.words}; the default is taken")
    return made, data


def _is_overruled(idle: _IdleSettings, over: Collection[str]) -> bool:
    """Whether what is laid over a file takes the effect of settings that the file alone says."""
    return _any_within(idle.by, over) and not _any_within(idle.keys, over)


def _any_within(keys: Collection[str], over: Collection[str]) -> bool:
    return any(f"{key}.".startswith(f"{own}.") for key in keys for own in over)


def _without(data: dict[str, Json], key: str) -> dict[str, Json]:
    """Return plain settings without one of them, unless it lies in a list; `data` is left alone."""
    if key in data:
        return {name: value for name, value in data.items() if name != key}
    for name, value in data.items():  # an entry's name may have dots
        if key.startswith(f"{name}.") and isinstance(value, dict):
            return data | {name: _without(value, key.removeprefix(f"{name}."))}
    return data


@functools.lru_cache(maxsize=1024)  # a sweep makes the same settings for many trials
def _warn_once(line: str) -> None:
    logger.warning("%s", line)


@dataclass(frozen=True)
class _Source:
    """Where settings stand, for errors."""

    file: str
    origins: Origins

    def fault(self, key: str, words: str, *idle: _IdleSettings) -> Faults:
        """Return a fault of a setting that names the file and the line it stands in."""
        file = self.file_of(key)
        line = self._line(file, key)
        return Faults(f"{file}:{line}: {words}" if line else f"{file}: {words}", idle=idle)

    def file_of(self, key: str) -> str:
        """Return the file that says a setting."""
        name = key.partition("[")[0]
        held = self.origins.files.items()
        files = [file for at, file in held if not key or f"{at}.".startswith(f"{name}.")]
        if COMMAND_LINE in files:
            return COMMAND_LINE
        return self.file if self.file in files or not files else files[0]

    @property
    def is_shipped(self) -> bool:
        """Whether the file is a preset."""
        return Path(self.file).resolve().is_relative_to(CONFIGS.resolve())

    def folder_of(self, key: str) -> Path:
        """Return the folder that names of files in a setting are relative to."""
        file = Path(self.file_of(key))
        return file.parent if file.is_file() else Path()

    def _line(self, file: str, key: str) -> int | None:
        lines = self.origins.lines.get(file, {})
        return lines.get(key) or lines.get(key.partition("[")[0])


@contextlib.contextmanager
def _gathering(told: list[Faults]) -> Iterator[None]:
    """Within the block faults are kept, and what comes after it goes on."""
    try:
        yield
    except Faults as faults:
        told.append(faults)


def _joined(told: list[Faults]) -> Faults:
    return Faults(
        *(sentence for one in told for sentence in one.sentences),
        idle=tuple(idle for one in told for idle in one.idle),
    )


def _convert(value: object, hint: object, source: _Source, key: str) -> object:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *marks = typing.get_args(hint)
        return _convert_marked(value, inner, marks, source=source, key=key)
    if hint is Any:
        return value
    if origin is Literal:
        return _convert_literal(value, typing.get_args(hint), source, key)
    if origin in (Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), source, key)
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(value, hint, source, key)
    if origin in (tuple, list):
        return _convert_sequence(value, typing.get_args(hint), source, key)
    if origin is dict:
        return _convert_dict(value, typing.get_args(hint), source, key)
    return _convert_scalar(value, hint, source, key)


def _convert_marked(
    value: object, inner: object, marks: list, *, source: _Source, key: str
) -> object:
    for mark in marks:
        if isinstance(mark, Preset) and isinstance(value, str):
            value = _named(value, mark.command, source, key)
        if isinstance(mark, PresetsByKey) and isinstance(value, dict):
            value = {at: _with_names(axis, at, source, key) for at, axis in value.items()}
    converted = _convert(value, inner, source, key)
    is_name = any(isinstance(mark, FolderName) and not mark.may_be_path for mark in marks)
    if is_name and (why := why_no_name(converted)):
        raise source.fault(key, f"{key} = {visible(repr(value))}: {why}; {NAME_WANTED}")
    for bounds in (m for m in marks if isinstance(m, Bounds)):
        if converted not in bounds:
            raise source.fault(key, f"{key} = {value!r}: allowed is {bounds.wanted(converted)}")
    return converted


def _named(value: str, command: str, source: _Source, key: str) -> str:
    try:
        return named(value, command, folder=source.folder_of(key))
    except ConfigError as error:
        raise source.fault(key, f"{key} = {value!r}: {error}") from None


def _with_names(axis: Json, command: str, source: _Source, key: str) -> Json:
    """Return an axis of a sweep, with settings files in place of the words that name them."""
    if not presets(command) or not isinstance(axis, dict):  # a setting, or no command
        return axis
    at = f"{key}.{command}"
    return {
        kind: [
            _named(v, command, source, f"{at}.{kind}") if isinstance(v, str) else v for v in all_
        ]
        if isinstance(all_, list)
        else all_
        for kind, all_ in axis.items()
    }


def _convert_literal(value: object, choices: tuple, source: _Source, key: str) -> object:
    if value in choices and not isinstance(value, bool):
        return value
    allowed = ", ".join(map(str, choices))
    is_mps = value == "mps" and "cuda" in choices
    hint = f"; {NO_MPS}" if is_mps else nearest(str(value), [str(c) for c in choices])
    raise source.fault(key, f"{key} = {value!r}: allowed is one of {allowed}{hint}")


def _convert_union(value: object, options: tuple, source: _Source, key: str) -> object:
    if value is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    parts = [option for option in options if dataclasses.is_dataclass(option)]
    if isinstance(value, dict) and parts:
        if len(parts) == 1:
            return _convert(value, parts[0], source, key)
        by_kind = {kind: option for option in parts for kind in kinds(option)}
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in by_kind:
            allowed = ", ".join(map(str, by_kind))
            hint = nearest(str(kind), list(by_kind))
            place = f"{key}.kind" if "kind" in value else key
            raise source.fault(place, f"{key}.kind = {kind!r}: allowed is one of {allowed}{hint}")
        return _convert(value, by_kind[kind], source, key)
    errors = []
    is_list = isinstance(value, (list, tuple))  # then the list option comes first, for its error
    for option in sorted(options, key=lambda o: is_list and typing.get_origin(o) is not tuple):
        try:
            return _convert(value, option, source, key)
        except Faults as faults:
            errors.append(faults)
    raise errors[0]


def _convert_dataclass(value: object, cls: type, source: _Source, key: str) -> object:
    prefix = f"{key}." if key else ""
    if not isinstance(value, dict):
        raise source.fault(key, f"{key} = {value!r}: expected settings of {cls.__name__}")
    hints, told, made = fields_of(cls), [], {}
    for name, own in value.items():
        with _gathering(told):
            if name not in hints:
                raise source.fault(
                    f"{prefix}{name}",
                    f"{prefix}{name}: no such setting in {cls.__name__}"
                    f"{nearest(str(name), list(hints))}; it has {', '.join(hints)}",
                )
            made[name] = _convert(own, hints[name], source, prefix + name)
    for name in missing(cls, value):
        cure = f"--{(prefix + name).replace('_', '-')}"
        # Nobody writes into what is shipped.
        cure = f"give {cure}" if source.is_shipped else f"set it there or by {cure}"
        told.append(source.fault(prefix + name, f"{prefix}{name} is missing; {cure}"))
    if told:
        raise _joined(told)
    try:
        return cls(**made)
    except Idle as error:
        raise source.fault(key, f"{key or cls.__name__}: {error}", _told(error, prefix)) from None
    except ValueError as error:  # a rule between settings, in __post_init__
        raise source.fault(key, f"{key or cls.__name__}: {error}") from None


def _told(error: Idle, prefix: str) -> _IdleSettings:
    given = {prefix + name: value for name, value in error.given.items()}
    told = ", ".join(f"{name} = {value}" for name, value in given.items())
    words = f"{told}: no effect, as {error.because.partition(':')[0]}"
    return _IdleSettings(tuple(given), tuple(prefix + name for name in error.by), words)


def _convert_sequence(value: object, items: tuple, source: _Source, key: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise source.fault(key, f"{key} = {value!r}: expected a list")
    places = {f"{key}[{i}]": one for i, one in enumerate(value)}
    return tuple(_convert_each(places, items[0], source))


def _convert_dict(value: object, items: tuple, source: _Source, key: str) -> dict:
    if not isinstance(value, dict):
        raise source.fault(key, f"{key} = {value!r}: expected `name: value` pairs")
    places = {f"{key}.{name}": one for name, one in value.items()}
    return dict(zip(map(str, value), _convert_each(places, items[1], source), strict=True))


def _convert_each(places: Mapping[str, object], hint: object, source: _Source) -> list[object]:
    made, told = [], []
    for key, value in places.items():
        with _gathering(told):
            made.append(_convert(value, hint, source, key))
    if told:
        raise _joined(told)
    return made


def _convert_scalar(value: object, cls: type, source: _Source, key: str) -> object:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, str) and value.startswith("~/"):
        value = os.path.expanduser(value)
    if isinstance(value, int) and not -MOST_INTEGER <= value < MOST_INTEGER:
        raise source.fault(key, f"{key} is a whole number of more than 64 bits: give a smaller one")
    if cls is float and (is_number or isinstance(value, str)):  # PyYAML reads 3e-4 as a string
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(value)):
                return number
            raise source.fault(key, f"{key} = {value!r}: a number is expected that is finite")
    if cls is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(value, cls) and (cls is bool or not isinstance(value, bool)):
        return value
    raise source.fault(
        key, f"{key} = {value!r}: expected {cls.__name__}, found {type(value).__name__}"
    )


def fields_of(cls: type) -> dict[str, object]:
    """Return the settings of a class with their types, marks included."""
    every = typing.get_type_hints(cls, include_extras=True)
    return {f.name: every[f.name] for f in dataclasses.fields(cls)}  # no class attributes


def kinds(cls: type) -> tuple[str, ...]:
    """Return the kinds that a part of this class can have; none where it has no `kind`."""
    hint = typing.get_type_hints(cls).get("kind") if dataclasses.is_dataclass(cls) else None
    return typing.get_args(hint)


def missing(cls: type, data: Mapping[str, Json]) -> list[str]:
    """Return the required settings that data leave out."""
    return [
        f.name for f in dataclasses.fields(cls) if default_of(f)() is _NONE and f.name not in data
    ]


_NONE = dataclasses.MISSING


def default_of(f: dataclasses.Field) -> Callable[[], object]:
    """Return what makes a field's default; `dataclasses.MISSING` where there is none."""
    return (lambda: f.default) if f.default_factory is _NONE else f.default_factory
