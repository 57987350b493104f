"""Help of a command: what it does and examples, then its flags in four groups, then its presets."""

import dataclasses
import shutil
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dwf.plain import Json
from dwf.settings.building import Origins, default_of, fields_of, kinds
from dwf.settings.marks import Expert, FlagName, Preset, Repeated, is_marked, marks_of
from dwf.settings.overlay import Overlay
from dwf.settings.plain_data import to_dict
from dwf.settings.presets import presets
from dwf.settings.texts import field_texts
from dwf.settings.words import options, parts

_MOST_COLUMNS = 100
_BASIC, _TRAINING, _CLUSTER, _EXPERT = "common", "training", "cluster", "expert"
_COMPUTE = "compute"  # parts of this name are about the machine


@dataclass(frozen=True)
class _Row:
    """One flag."""

    key: str
    """Name of the setting within its class."""
    flag: str
    takes: str
    text: str
    group: str
    part: str = ""
    """The part of the settings that it is in."""


def help_text(
    overlay: Overlay, line: Overlay, *, origins: Origins, command: str, about: str, file: str
) -> str:
    """Return the help of a command.

    Args:
        overlay: its settings as file and flags give them, for the values that are shown.
        line: the flags beside the settings.
        origins: which of the settings the file gives.
        command: its name.
        about: what it does and examples of it.
        file: the settings file, as it was named.
    """
    said = set(origins.files)
    rows = [*_launch_rows(line), *_rows(overlay.cls, overlay.data, said)]
    lines = [f"usage: dwf {command} [FILE] [--flag value ...]", "", *_about(about), ""]
    lines += _wrap(
        "Every setting is a flag, whatever the settings file holds. FILE is a settings file or one "
        f"of the presets at the end. In brackets: what {file} gives, or the default."
    )
    for group in (_BASIC, _TRAINING, _CLUSTER, _EXPERT):
        lines += _group(group, [row for row in rows if row.group == group])
    if names := presets(command) if command else []:
        lines += ["", "presets", *_wrap(", ".join(names), indent="  ", breaks=False)]
    return "\n".join(lines)


def _about(about: str) -> Iterator[str]:
    """Yield what a command does, wrapped, and its examples as they stand."""
    first, _, examples = about.strip().partition("\n\n")
    yield from _wrap(" ".join(first.split()))
    if examples:
        yield ""
        yield from (f"  {example}".rstrip() for example in examples.splitlines())


def _group(name: str, rows: list[_Row]) -> Iterator[str]:
    part = ""
    if rows:
        yield ""
        yield name
    for row in rows:
        if row.part != part:
            part = row.part
            yield from _wrap(part, indent="  ")
        indent = "    " if part else "  "
        yield f"{indent}--{row.flag} {row.takes}".rstrip()
        yield from _wrap(row.text, indent=f"{indent}    ")


def _wrap(text: str, indent: str = "", *, breaks: bool = True) -> list[str]:
    width = min(_MOST_COLUMNS, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=breaks,
        break_long_words=False,
    )


def _launch_rows(line: Overlay) -> Iterator[_Row]:
    common = {f.name for f in dataclasses.fields(line.cls.__mro__[-2])}
    for row in _rows(line.cls, line.data, set()):
        usual = _BASIC if row.key in common else _CLUSTER
        group = row.group if row.group == _EXPERT else usual
        yield dataclasses.replace(row, group=group, part="")


def _rows(
    cls: type, data: Json, said: set[str], *, prefix: str = "", group: str = "", part: str = ""
) -> Iterator[_Row]:
    """Yield the flags of a class; settings at the top first, then those of its parts."""
    hints = fields_of(cls)
    texts = {name: " ".join(text.split()) for name, text in field_texts(cls).items()}
    every = {f.name: f for f in dataclasses.fields(cls)}
    held = data if isinstance(data, dict) else {}
    nested = []
    for name, hint in hints.items():
        if name == "kind" and prefix:
            continue  # told with its part, whose other kinds have other settings
        own = group or (_EXPERT if name == _COMPUTE or is_marked(hint, Expert) else "")
        value = held.get(name, to_dict(default_of(every[name])()))
        text = texts.get(name, "")
        row = _row(name, hint, prefix=prefix, text=text)
        if row is None:
            nested.append((name, hint, value, own))
            continue
        shown = _shown(value, f"{prefix}{name}".replace("-", "_") in said)
        of_part = _TRAINING if prefix else _BASIC
        yield dataclasses.replace(row, group=own or of_part, part=part, text=f"{row.text} {shown}")
    for name, hint, value, own in nested:
        yield from _rows_of_part(
            f"{prefix}{name.replace('_', '-')}",
            hint,
            value,
            said=said,
            group=own,
            text=texts.get(name, ""),
        )


def _rows_of_part(
    key: str, hint: object, value: Json, *, said: set[str], group: str, text: str
) -> Iterator[_Row]:
    every = [kind for one in options(hint) for kind in kinds(one)]
    kind = value.get("kind") if isinstance(value, dict) else None
    part = f"{key}: {text}"
    if len(every) > 1:
        more = "Another kind has settings of its own; --help behind it shows them."
        shown = _shown(kind, f"{key}.kind".replace("-", "_") in said)
        allowed = "{" + ",".join(every) + "}"
        yield _Row("kind", f"{key}.kind", allowed, f"{more} {shown}", group or _TRAINING, part)
    chosen = [one for one in parts(hint, value) if dataclasses.is_dataclass(one)]
    if len(chosen) == 1:
        yield from _rows(chosen[0], value, said, prefix=f"{key}.", group=group, part=part)


def _row(name: str, hint: object, *, prefix: str, text: str) -> _Row | None:
    """Return the flag of a setting; None of a part, whose settings have flags of their own."""
    flag = next((m.name for m in marks_of(hint) if isinstance(m, FlagName)), name).replace("_", "-")
    if any(typing.get_origin(one) is dict or one is dict for one in options(hint)):
        return _Row(name, f"{prefix}{flag}.NAME.SETTING", "VALUE", text, "")
    takes = _takes(hint)
    if not takes:
        return None
    if takes == "bool":
        return _Row(name, f"{prefix}{flag}, --{prefix}no-{flag}", "", text, "")
    own = [n for one in options(hint) if dataclasses.is_dataclass(one) for n in fields_of(one)]
    if own:
        behind = ", ".join(f".{n.replace('_', '-')}" for n in own)
        text = f"{text} Or, behind the flag's name: {behind}."
    return _Row(name, f"{prefix}{flag}", takes, text, "")


def _shown(value: Json, is_said: bool) -> str:
    if value is dataclasses.MISSING:
        return "[needed]"
    if isinstance(value, list):
        text = " ".join(map(str, value)) or "none"
    else:
        text = "none" if value in (None, {}) else str(value)
    return f"[{text}]" if is_said else f"[default: {text}]"


def _takes(hint: object) -> str | None:
    """Return in words what a flag takes; None of nothing but a part."""
    if is_marked(hint, Preset):
        return "FILE"
    words = [word for one in options(hint) for word in _word(one)]
    if not words:
        return None
    if words == ["bool"]:
        return "bool"
    again = " (may be repeated)" if is_marked(hint, Repeated) else ""
    none = "|none" if type(None) in options(hint) else ""
    return "|".join(dict.fromkeys(words)) + none + again


def _word(option: object) -> list[str]:
    names = {int: "INT", float: "NUMBER", str: "TEXT", bool: "bool", Path: "FILE", Any: "VALUE"}
    if typing.get_origin(option) is Literal:
        return ["{" + ",".join(map(str, typing.get_args(option))) + "}"]
    if typing.get_origin(option) in (tuple, list):
        inner = _takes(typing.get_args(option)[0]) or "{...}"
        return [f"{inner} ..."]
    return [names[option]] if option in names else []
