"""Settings that flags give, laid over those of a file: every setting is a flag.

A flag reaches whatever the class of the settings has, be it in the file or not: a part that the
file leaves out, a range in place of its list of values, another kind with that kind's settings.
"""

import contextlib
import copy
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from dwf.errors import ConfigError
from dwf.names import name_said
from dwf.plain import Json
from dwf.settings.building import Origins, build_over, fields_of, kinds, missing
from dwf.settings.marks import FolderName, Repeated, is_marked, marks_of
from dwf.settings.plain_data import flatten
from dwf.settings.words import (
    Flag,
    Place,
    default_part,
    most_words,
    options,
    parts,
    places,
    value_of,
)

_ANY = "any"  # in the place of a zoo's or a run's name that is not known yet


@dataclass
class Overlay:
    """Plain settings to which flags are put."""

    cls: type
    """Class of the settings."""
    data: dict[str, Json]
    """Settings so far; the file's own are left as they were."""
    given: set[str] = field(default_factory=set)
    """Dotted keys that flags have given."""
    faults: list[str] = field(default_factory=list)
    """Sentences about flags that are wrong."""
    root: Path | None = None
    """Root under which folders lie whose names flags say by a path; None: names are as typed."""

    def __post_init__(self):
        self.data = copy.deepcopy(self.data)

    def put(
        self,
        flags: Sequence[Flag],
        *,
        also: Sequence[str] = (),
        show: Callable[[str], str] = "--{}".format,
    ) -> None:
        """Put flags in their order, kinds first; of a flag given twice the last counts.

        Args:
            flags: of these settings.
            also: names of other flags, of which a fault may name the nearest.
            show: how a fault calls a flag.
        """
        for flag in sorted(flags, key=_is_no_kind):
            found = places(self.cls, flag.name, data=self.data)
            if not found:
                close = self._nearest(flag, also, show)
                self.faults.append(f"{show(flag.name)}: no such setting{close}")
            else:
                self._put(flag, found[0], show(flag.name))

    def _put(self, flag: Flag, place: Place, shown: str) -> None:
        most = most_words(place.hint)
        if place.is_no and flag.words:
            self.faults.append(f"{shown} takes no value, found {' '.join(flag.words)}")
        elif most is not None and len(flag.words) > most:
            self.faults.append(f"{shown} {' '.join(flag.words)}: expected one value")
        elif most is not None and not flag.words and bool not in options(place.hint):
            self.faults.append(f"{shown}: expected a value behind it")
        else:
            value = False if place.is_no else value_of(self._names(flag, place), place.hint)
            key = ".".join(place.key)
            is_more = key in self.given and is_marked(place.hint, Repeated)
            self.given.add(key)
            _put(self.data, place.key, value, hint=self.cls, adds=is_more)

    def _names(self, flag: Flag, place: Place) -> Sequence[str]:
        """Return the words behind a flag; names, where a path says one."""
        mark = _folder_mark(place.hint)
        if mark is None or self.root is None:
            return flag.words
        parent, told = self.root / mark.place, list[str]()
        for word in flag.words:
            try:
                told.append(
                    name_said(word, parent, key=f"--{flag.name}", may_be_path=mark.may_be_path)
                )
            except ConfigError as error:
                self.faults.append(str(error))
                told.append(word)
        return told

    def _nearest(self, flag: Flag, also: Sequence[str], show: Callable[[str], str]) -> str:
        known = [key.replace("_", "-") for key in (*flag_names(self.cls), *also)]
        if flag.name.replace("-", "_") in flag_names(self.cls):
            return " in the kind that is chosen; another kind has it"
        close = difflib.get_close_matches(flag.name.replace("_", "-"), known, n=1, cutoff=0.6)
        return f"; did you mean {show(close[0])!r}?" if close else ""

    def build(self, source: str, *, origins: Origins | None = None) -> Any:
        """Return the settings that it comes to; what flags leave no effect is no longer its own.

        Args:
            source: see `building.build`.
            origins: see `building.build`.

        Raises:
            ConfigError: see `building.build`.
        """
        made, self.data = build_over(
            self.cls, self.data, source=source, origins=origins, over=self.given
        )
        return made

    def leave_out_idle(self, source: str) -> None:
        """Leave out what flags leave no effect, though settings that link stages are missing yet.

        Args:
            source: see `building.build`.
        """
        hints = fields_of(self.cls)
        links = {
            name: [_ANY] if most_words(hints[name]) is None else _ANY
            for name in missing(self.cls, self.data)
        }
        linked = replace(self, data=self.data | links)
        with contextlib.suppress(ConfigError):  # told where the links are known
            linked.build(source)
        self.data = {name: value for name, value in linked.data.items() if name not in links}

    @property
    def keys(self) -> set[str]:
        """Dotted keys of all settings in the data that flags have given."""
        return {key for key in flatten(self.data) if any(_within(key, own) for own in self.given)}


def _folder_mark(hint: object) -> FolderName | None:
    """Return the mark of a setting that names a folder, or several; None of another."""
    if get_origin(hint) is Annotated:
        found = [mark for mark in marks_of(hint) if isinstance(mark, FolderName)]
        return found[0] if found else _folder_mark(get_args(hint)[0])
    return next(filter(None, map(_folder_mark, get_args(hint))), None)


def flag_names(cls: type, prefix: str = "") -> list[str]:
    """Return the dotted keys of all settings of a class, those of every kind of its parts."""
    names = []
    for name, hint in fields_of(cls).items():
        names.append(prefix + name)
        for option in options(hint):
            if dataclasses.is_dataclass(option):
                names += flag_names(option, f"{prefix}{name}.")
    return list(dict.fromkeys(names))


def _is_no_kind(flag: Flag) -> tuple[bool, int]:
    is_kind = flag.name.rpartition(".")[2] == "kind"
    return (not is_kind, flag.name.count(".") if is_kind else 0)


def _within(key: str, own: str) -> bool:
    return key == own or key.startswith(f"{own}.")


def _put(
    data: dict[str, Json], key: tuple[str, ...], value: Json, *, hint: object, adds: bool
) -> None:
    """Put a value; parts on the way that are not there begin as they are by default."""
    for name in key[:-1]:
        owner = _owner(hint, name, data)
        if not isinstance(data.get(name), dict):
            data[name] = (
                {} if name in data or owner is None else dict(default_part(owner, name) or {})
            )
        hint = fields_of(owner)[name] if owner else _value_hint(hint)
        data = data[name]
    last = key[-1]
    if adds:
        data[last] = [*data[last], *value]
    elif last == "kind" and _is_other_class(data.get("kind"), value, hint):
        data.clear()
        data["kind"] = value
    else:
        data[last] = value


def _owner(hint: object, name: str, data: Mapping[str, Json]) -> type | None:
    """Return the class that has a setting; None of entries of a dictionary, which have no class."""
    classes = [option for option in parts(hint, data) if dataclasses.is_dataclass(option)]
    return next((cls for cls in classes if name in fields_of(cls)), None)


def _value_hint(hint: object) -> object:
    of_entries = [get_args(one)[1] for one in options(hint) if get_origin(one) is dict]
    return of_entries[0] if of_entries else Any


def _is_other_class(old: Json, new: Json, hint: object) -> bool:
    """Whether two kinds of a part have different settings; those of one class are kept."""
    mine = [option for option in options(hint) if old in kinds(option)]
    return not any(new in kinds(option) for option in mine)
