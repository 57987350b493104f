"""Schema of `report.json`: whoever writes one that is held to it can have it as a row of an audit.

The schema itself is `report.schema.json` beside this file (JSON Schema, draft 2020-12).
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from dwf.errors import ConfigError
from dwf.plain import Json

FORMAT, VERSION = "dwf-report", 1
SCHEMA = Path(__file__).with_name("report.schema.json")
_TOLERANCE = 1e-6
_AGAIN = "make it again with python launch/evaluate.py, under another --name or without its folder"


def read_report(file: Path) -> dict[str, Json]:
    """Return what a `report.json` of this version says; its content is not held to the schema.

    Raises:
        ConfigError: it is none, or of another version.
    """
    try:
        told = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file: give the report.json of a report") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{file} is no JSON ({error}): {_AGAIN}") from None
    found = (told.get("format"), told.get("version")) if isinstance(told, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise ConfigError(
            f"{file}: format = {found[0]!r}, version = {found[1]!r}, this dwf reads "
            f"{FORMAT!r}, {VERSION}: {_AGAIN}"
        )
    return told


def validate_report(file: Path) -> dict[str, Json]:
    """Return what a `report.json` says, held to the schema, and its statistics to its numbers.

    Raises:
        ConfigError: it is of another schema; names the first place with the value found there.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    told = read_report(file)
    error = best_match(Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(told))
    if error is not None:
        place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error.path)
        raise ConfigError(
            f"{file}: {place.removeprefix('.') or 'the whole'}: {_shortened(error.message)}: "
            f"expected as {SCHEMA.name} has it: {_AGAIN}"
        )
    for problem in _untrue(told):
        raise ConfigError(f"{file}: {problem}: every network counts, none is left out")
    return told


def _untrue(told: dict[str, Json]) -> Iterator[str]:
    """Yield where a summary is not that of all networks."""
    for one in told["sets"]:
        num, title = one["summary"]["n"], one["title"]
        for name, values in one["networks"].items():
            if len(values) != num:
                yield f"{title}: networks.{name} has {len(values)} values, summary.n is {num}"
            statistics = one["summary"].get(name)
            known = all(isinstance(v, (int, float)) for v in values)
            if not values or not known or not isinstance(statistics, dict):
                continue
            mean, said = math.fsum(values) / len(values), statistics.get("mean")
            if said is None or not math.isclose(mean, said, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                yield f"{title}: summary.{name}.mean = {said}, its networks have {mean:.6g}"


def _shortened(message: str, most: int = 200) -> str:
    return message if len(message) <= most else f"{message[:most]} ..."
