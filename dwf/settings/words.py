"""Words of a command line: flags with their values, and what the flag of a setting takes."""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.settings.building import default_of, fields_of, kinds
from dwf.settings.marks import FlagName, PartOf, marks_of
from dwf.settings.plain_data import to_dict
from dwf.yaml_files import load_yaml

_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Flag:
    """One flag of a command line."""

    name: str
    """Name as it was typed, without the dashes: `recipe.learning-rate`."""
    words: tuple[str, ...] = ()
    """Words behind it, or the one behind its `=`."""
    is_joined: bool = False
    """Whether there is an `=`: then the word is its own, whatever the flag takes."""


@dataclass(frozen=True)
class Place:
    """A setting that a flag is about."""

    key: tuple[str, ...]
    """Its names, the outermost first."""
    hint: object
    """Its type."""
    is_no: bool = False
    """Whether the flag is `--no-...`, which sets it to false."""


def read_flags(argv: Sequence[str]) -> tuple[list[Flag], list[str]]:
    """Return the flags of a command line, each with all words behind it, and the words before."""
    flags: list[tuple[str, list[str], bool]] = []
    loose, behind = [], None
    for word in argv:
        if word in ("-h", "--help"):
            flags, behind = [*flags, ("help", [], False)], None
        elif word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flags.append((name, [value] if equals else [], bool(equals)))
            behind = None if equals else flags[-1][1]
        else:
            (loose if behind is None else behind).append(word)
    return [Flag(name, tuple(words), joined) for name, words, joined in flags], loose


def places(cls: type, name: str, *, data: Mapping[str, Json]) -> list[Place]:
    """Return the settings that a flag may be about; one but where the kind of a part is not said.

    Args:
        cls: class of the settings.
        name: of the flag, without the dashes.
        data: settings so far, which choose the kinds of parts.
    """
    renamed = [
        Place((key,), hint)
        for key, hint in fields_of(cls).items()
        if any(isinstance(mark, FlagName) and mark.name == name for mark in marks_of(hint))
    ]
    path = name.split(".")
    found = renamed or list(_descend(cls, path, data))
    if not found and path[-1].startswith("no-"):
        path[-1] = path[-1].removeprefix("no-")
        yes = _descend(cls, path, data)
        found = [Place(p.key, p.hint, is_no=True) for p in yes if bool in options(p.hint)]
    return found


def _descend(hint: object, path: list[str], data: Json) -> Iterator[Place]:
    if not path:
        yield Place((), hint)
        return
    for option in parts(hint, data):
        if dataclasses.is_dataclass(option):
            name = path[0].replace("-", "_")
            hints = fields_of(option)
            if name in hints:
                held = data if isinstance(data, dict) else {}
                held = held if name in held else {name: default_part(option, name)}
                yield from _under((name,), hints[name], path[1:], held)
        elif option in (dict, Any):
            yield Place(tuple(part.replace("-", "_") for part in path), Any)
        elif typing.get_origin(option) is dict:
            yield from _in_dict(typing.get_args(option)[1], path, data)


def _under(
    key: tuple[str, ...], hint: object, path: list[str], data: Mapping[str, Json]
) -> Iterator[Place]:
    for place in _descend(hint, path, data.get(key[0])):
        yield Place((*key, *place.key), place.hint)


def _in_dict(hint: object, path: list[str], data: Json) -> Iterator[Place]:
    """Yield the setting of one entry; keys of entries may have dots."""
    names = [".".join(path[:end]) for end in range(1, len(path) + 1)]
    held = data if isinstance(data, dict) else {}
    # A key that is there comes first; of new ones the shortest that leaves a setting's name.
    for end in sorted(range(1, len(path) + 1), key=lambda end: names[end - 1] not in held):
        found = list(_under((names[end - 1],), hint, path[end:], held))
        if found:
            yield from found
            return


def default_part(owner: type, name: str) -> dict[str, Json] | None:
    """Return the settings that a part of a class has by default; None: it has none, or is none."""
    (found,) = (f for f in dataclasses.fields(owner) if f.name == name)
    default = default_of(found)()
    is_part = dataclasses.is_dataclass(default) or isinstance(default, dict)
    return to_dict(default) if is_part else None


def options(hint: object) -> list[object]:
    """Return the types that a setting may have; marks are taken off, `PartOf` is looked into."""
    if typing.get_origin(hint) is Annotated:
        part = [mark.cls for mark in marks_of(hint) if isinstance(mark, PartOf)]
        return part or options(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [one for each in typing.get_args(hint) for one in options(each)]
    return [hint]


def parts(hint: object, data: Json) -> list[object]:
    """Return a setting's types, those alone that are of the data's kind where there are any."""
    all_of = options(hint)
    kind = data.get("kind") if isinstance(data, dict) else None
    own = [option for option in all_of if kind is not None and kind in kinds(option)]
    return own or all_of


def most_words(hint: object) -> int | None:
    """Return how many words the flag of a setting takes at most; None: any number."""
    kinds_of = options(hint)
    if any(one is Any or typing.get_origin(one) in (tuple, list) for one in kinds_of):
        return None
    return 1


def value_of(words: Sequence[str], hint: object) -> Json:
    """Return what words say, as plain data; what does not fit stays text, for `build` to refuse."""
    if not words and bool in options(hint):
        return True
    if len(words) == 1:
        return _one(words[0], hint)
    lists = [one for one in options(hint) if typing.get_origin(one) in (tuple, list)]
    return [_one(word, typing.get_args(lists[0])[0] if lists else Any) for word in words]


def _one(word: str, hint: object) -> Json:
    """Return what a word says; for a list, as a list of one."""
    every = options(hint)
    choices = [
        c for one in every if typing.get_origin(one) is Literal for c in typing.get_args(one)
    ]
    if word in choices:
        return word
    if type(None) in every and word.lower() == "none":
        return None
    if word.startswith(("[", "{")) and any(map(_is_nested, every)):
        with contextlib.suppress(ConfigError):
            return load_yaml(word)
    if bool in every and word in _TRUTH:
        return _TRUTH[word]
    for cls in (int, float):
        if cls in every:
            with contextlib.suppress(ValueError):
                return cls(word)
    if Any in every:
        with contextlib.suppress(ConfigError):
            return load_yaml(word)
    for one in every:
        if typing.get_origin(one) in (tuple, list):
            return [_one(word, typing.get_args(one)[0])]
    return word


def _is_nested(option: object) -> bool:
    """Whether YAML writes what is of a type in brackets."""
    is_generic = typing.get_origin(option) in (tuple, list, dict)
    return is_generic or option in (Any, dict) or dataclasses.is_dataclass(option)
