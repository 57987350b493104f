"""Columns from a CSV file of the user's: a line for each member, or for each run."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dwf.errors import ConfigError
from dwf.importers.importer import Member, Value

_KEYS = ("member", "run")


def with_facts(members: list[Member], file: Path) -> list[Member]:
    """Return members with the columns that a CSV file tells of them.

    Args:
        members: as the importer lists them.
        file: CSV with a header; `member` (path in the source, with or without its ending) or `run`
            says whom a line is about.

    Raises:
        ConfigError: no such file, no such column, a line twice, or no line is about a member.
    """
    lines, key = _read(file)
    found = 0
    made = []
    for member in members:
        names = (member.run,) if key == "run" else _names(member)
        told = next((lines[name] for name in names if name in lines), None)
        found += told is not None
        made.append(replace(member, columns={**member.columns, **told}) if told else member)
    if not found:
        raise ConfigError(
            f"{file}: no {key} of its {len(lines)} lines is one of the source, such as "
            f"{_names(members[0])[0] if key == 'member' else members[0].run!r}"
        )
    return made


def _names(member: Member) -> tuple[str, ...]:
    path = Path(member.name)
    return member.name, path.name, path.with_suffix("").as_posix(), path.stem


def _read(file: Path) -> tuple[Mapping[str, Mapping[str, Value]], str]:
    if not file.is_file():
        raise ConfigError(f"facts = {str(file)!r}: no such file")
    lines: dict[str, dict[str, Value]] = {}
    with open(file, newline="") as opened:
        reader = csv.DictReader(opened)
        names = reader.fieldnames or []
        key = next((name for name in _KEYS if name in names), None)
        if key is None:
            raise ConfigError(
                f"{file} has the columns {', '.join(names)}: one called member or run is needed, "
                "which says whom a line is about"
            )
        for number, line in enumerate(reader, 2):
            name = line.pop(key)
            if name in lines:
                raise ConfigError(f"{file}, line {number}: {key} {name} is there twice")
            lines[name] = {column: typed(value or "") for column, value in line.items() if column}
    return lines, key


def typed(text: str) -> Value:
    """Return a number where a text is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
