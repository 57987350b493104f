"""Marks in the type of a setting: its range, and how it is given in a file and as a flag."""

import math
from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

_USUAL_MOST = 1e9
_MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Bounds:
    """The range of a number: `low <= value <= high`, or `low < value` where `open` is set."""

    low: float
    high: float = _USUAL_MOST
    """Largest value; one that is so far off that nobody means it is told where it is exceeded."""
    open: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open else self.low <= value
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        lower = f"{'above' if self.open else 'at least'} {self.low:g}"
        return lower if self.high >= _USUAL_MOST else self.in_full

    @property
    def in_full(self) -> str:
        """The range in words, whatever it is."""
        return f"{'above' if self.open else 'at least'} {self.low:g}, at most {self.high:g}"

    def wanted(self, value: float) -> str:
        """Return in words the range that a value is not in."""
        return self.in_full if value > self.high else str(self)


Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0, _MOST_SEED)]
Positive = Annotated[float, Bounds(0, open=True)]
NonNegative = Annotated[float, Bounds(0)]
Rate = Annotated[float, Bounds(0, 1000, open=True)]
"""A learning rate."""
Fraction = Annotated[float, Bounds(0, 1)]
PositiveFraction = Annotated[float, Bounds(0, 1, open=True)]


@dataclass(frozen=True)
class FolderName:
    """Mark of a word that names a folder under a root, see `dwf.names`."""

    place: str
    """Folder under the root in which such lie, as `zoos`."""
    may_be_path: bool = False
    """Whether it may be a path of something else; then it is held to no rule of names."""


Name = Annotated[str, FolderName("zoos")]
"""A zoo's name."""
RunName = Annotated[str, FolderName("runs")]
ReportName = Annotated[str, FolderName("reports")]
NameOrPath = Annotated[str, FolderName("zoos", may_be_path=True)]
"""A zoo's name, or a path of files of networks."""


@dataclass(frozen=True)
class Preset:
    """Mark of a word that names a settings file, or a preset of one command."""

    command: str
    """Folder of the presets: `zoo` is `configs/zoo/`."""


@dataclass(frozen=True)
class PresetsByKey:
    """Mark of axes by dotted key; those whose key is a command alone list settings files of it."""


@dataclass(frozen=True)
class Repeated:
    """Mark of a list whose flag may be given more than once; the values of all count."""


@dataclass(frozen=True)
class Expert:
    """Mark of a setting that few change: help shows it last."""


@dataclass(frozen=True)
class FlagName:
    """Mark of a setting whose flag has another name."""

    name: str


@dataclass(frozen=True)
class PartOf:
    """Mark of plain data that hold some of a class's settings; the class checks them later."""

    cls: type


def marks_of(hint: object) -> tuple[object, ...]:
    """Return the marks of a type; none of a type without."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def is_marked(hint: object, mark: type) -> bool:
    """Return whether a type has a mark of a class."""
    return any(isinstance(one, mark) for one in marks_of(hint))
