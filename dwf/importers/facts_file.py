"""Columns from a CSV file of the user's: a line for each member, or for each run."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dwf.errors import ConfigError
from dwf.files import gunzip, read_bytes
from dwf.importers.columns import RESERVED
from dwf.importers.importer import Member, Value
from dwf.metrics import logger

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
    rows = list(read_table(file))
    names = [name for name in rows[0] if name] if rows else []
    key = next((name for name in _KEYS if name in names), None)
    if key is None:
        raise ConfigError(
            f"{file} has {len(rows)} lines with the columns {', '.join(names) or 'none'}: one "
            "called member or run is needed, which says whom a line is about, parted by commas"
        )
    for number, line in enumerate(rows, 2):
        name = line.pop(key)
        if name in lines:
            raise ConfigError(f"{file}, line {number}: {key} {name} is there twice")
        lines[name] = {column: typed(value or "") for column, value in line.items() if column}
    own = [name for name in names if name in RESERVED and name not in (key, "split")]
    if own:
        logger.warning("%s: %s: dwf fills such columns itself, so they are not taken", file, own)
    return lines, key


def read_table(file: Path) -> Iterator[dict[str, str]]:
    """Yield a mapping for each line of a CSV file with a header; `.gz` is unpacked as it is read.

    Raises:
        ConfigError: it is no such file, or damaged.
    """
    try:
        content = read_bytes(file)
        content = gunzip(content) if file.suffix == ".gz" else content
        text = content.decode("utf-8-sig")  # Excel's mark goes
        yield from csv.DictReader(io.StringIO(text, newline=""))
    except (ValueError, csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{file} is no CSV file in UTF-8 ({error}): save it as one") from None


def typed(text: str) -> Value:
    """Return a number where a text is one, else the text."""
    for kind in () if "_" in text else (int, float):  # 2021_10 is a name, which Python reads as one
        try:
            return kind(text)
        except ValueError:
            continue
    return text
