"""Settings of an export, and the table of formats."""

from dataclasses import dataclass
from typing import Literal

from dwf.checked import Checked
from dwf.settings import Count, Name, ReportName, Whole

EXPORTERS = {
    "safetensors": "dwf.exporters.safetensors:SafetensorsExporter",
    "state_dict": "dwf.exporters.state_dict:StateDictExporter",
    "npz": "dwf.exporters.npz:NpzExporter",
    "onnx": "dwf.exporters.onnx:OnnxExporter",
    "huggingface": "dwf.exporters.huggingface:HuggingFaceExporter",
    "archive": "dwf.exporters.archive:ArchiveExporter",
    "unterthiner": "dwf.exporters.unterthiner:UnterthinerExporter",
}
Format = Literal[
    "safetensors", "state_dict", "npz", "onnx", "huggingface", "archive", "unterthiner"
]


@dataclass(frozen=True)
class ExportConfig(Checked):
    """Networks of a zoo, written as files that other tools load."""

    zoo: Name
    """Zoo whose networks are written: trained, aligned, sampled or merged."""
    format: Format = "safetensors"
    """Format of the files."""
    to: str | None = None
    """Folder that is written; default: exports/NAME."""
    rows: tuple[Whole, ...] = ()
    """Rows that are written, by their index; default: all."""
    best: Count | None = None
    """Number of networks that are written: the most accurate on validation images, each at its last
    epoch."""
    random: Count | None = None
    """Number of networks that are written: drawn, each at its last epoch."""
    seed: Whole = 0
    """Seed of the draw."""
    licence: str | None = None
    """Licence of the networks, by its SPDX name; archives need one, cards have room for it."""
    report: ReportName | None = None
    """Report on the networks, beside their zoo: cards tell its mark, and `best` its accuracies on
    validation images where the zoo has none."""
    not_finite: bool = False
    """Whether rows with weights that are not finite are written; else they are refused."""

    def __post_init__(self):
        asked = {"rows": self.rows or None, "best": self.best, "random": self.random}
        given = [name for name, value in asked.items() if value is not None]
        if len(given) > 1:
            told = " and ".join(f"{name} = {asked[name]}" for name in given)
            raise ValueError(f"{told}: one of them chooses the networks: leave the others out")
        twice = [row for row in self.rows if self.rows.count(row) > 1] if self.rows else []
        if twice:
            raise ValueError(f"rows: {twice[0]} is given twice: give each row once")
