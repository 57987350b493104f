"""Settings: frozen dataclasses <- a strict YAML file <- flags. The only parser.

Precedence: defaults < the file that a file extends < the file < flags. A field's type is its
contract: `Literal` and `Bounds` say what is allowed, a union of dataclasses is chosen by `kind:`,
and the marks in `marks` say how it is given. Every setting is a flag. No torch is imported here.
"""

from dwf.settings.assign import assign, assigned
from dwf.settings.building import build
from dwf.settings.launch import Launch, Parsed, file_named, parse, take_files
from dwf.settings.marks import (
    Bounds,
    Count,
    Expert,
    FlagName,
    FolderName,
    Fraction,
    Name,
    NameOrPath,
    NonNegative,
    PartOf,
    Positive,
    PositiveFraction,
    Preset,
    PresetsByKey,
    Rate,
    Repeated,
    ReportName,
    RunName,
    Whole,
)
from dwf.settings.overlay import Overlay
from dwf.settings.plain_data import find, flatten, to_dict
from dwf.settings.presets import find_file, presets
from dwf.settings.reading import TRACK, load, read_yaml

__all__ = [
    "TRACK",
    "Bounds",
    "Count",
    "Expert",
    "FlagName",
    "FolderName",
    "Fraction",
    "Launch",
    "Name",
    "NameOrPath",
    "NonNegative",
    "Overlay",
    "Parsed",
    "PartOf",
    "Positive",
    "PositiveFraction",
    "Preset",
    "PresetsByKey",
    "Rate",
    "Repeated",
    "ReportName",
    "RunName",
    "Whole",
    "assign",
    "assigned",
    "build",
    "file_named",
    "find",
    "find_file",
    "flatten",
    "load",
    "parse",
    "presets",
    "read_yaml",
    "take_files",
    "to_dict",
]
