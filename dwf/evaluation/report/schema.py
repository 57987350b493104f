"""Schema of `report.json`: whoever writes one that is held to it can have it as a row of an audit.

The schema itself is `report.schema.json` beside this file (JSON Schema, draft 2020-12).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import ConfigError
from dwf.files import read_json
from dwf.plain import Json

FORMAT, VERSION = "dwf-report", 2
SCHEMA = Path(__file__).with_name("report.schema.json")
_TOLERANCE = 1e-6
AGAIN = "make it again with dwf evaluate, under another --name or without its folder"
"""Words on how to make a report anew."""
_MOST_LETTERS = 200


@dataclass(frozen=True)
class Schema:
    """A version of a kind of JSON file, and what is said of a file that is none."""

    format: str
    """Word by which such files are known."""
    version: int
    """Version that is read."""
    file: Path
    """JSON Schema of their content."""
    wanted: str
    """Words on what to give, where a file is missing."""
    again: str
    """Words on how to make a file anew."""

    @property
    def head(self) -> dict[str, Json]:
        """Entries by which such a file is known."""
        return {"format": self.format, "version": self.version}

    def read(self, file: Path) -> dict[str, Json]:
        """Return what a file of this version says; its content is not held to the schema.

        Raises:
            ConfigError: it is none, or of another version.
        """
        try:
            told = read_json(file, cure=self.again, error=ConfigError)
        except FileNotFoundError:
            raise ConfigError(f"{file}: no such file: {self.wanted}") from None
        found = (told.get("format"), told.get("version"))
        if found != (self.format, self.version):
            raise ConfigError(
                f"{file}: format = {found[0]!r}, version = {found[1]!r}, this dwf reads "
                f"{self.format!r}, {self.version}: {self.again}"
            )
        return told

    def validate(self, file: Path) -> dict[str, Json]:
        """Return what a file says, held to the schema.

        Raises:
            ConfigError: it is of another schema; names the first place with the value found there.
        """
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match

        told = self.read(file)
        error = best_match(Draft202012Validator(read_json(self.file)).iter_errors(told))
        if error is not None:
            place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error.path)
            raise ConfigError(
                f"{file}: {place.removeprefix('.') or 'the whole'}: {_shortened(error.message)}: "
                f"expected as {self.file.name} has it: {self.again}"
            )
        return told


_REPORT = Schema(
    FORMAT,
    VERSION,
    file=SCHEMA,
    wanted="give the report.json of a report",
    again=AGAIN,
)


def read_report(file: Path) -> dict[str, Json]:
    """Return what a `report.json` of this version says; see `Schema.read`."""
    return _REPORT.read(file)


def validate_report(file: Path) -> dict[str, Json]:
    """Return what a `report.json` says, held to the schema, and its statistics to its numbers.

    Raises:
        ConfigError: see `Schema.validate`; or a statistic is not that of all networks.
    """
    told = _REPORT.validate(file)
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


def _shortened(message: str) -> str:
    return message if len(message) <= _MOST_LETTERS else f"{message[:_MOST_LETTERS]} ..."
