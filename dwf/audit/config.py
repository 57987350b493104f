"""Settings of an audit: which zoos, which rows, what each may cost."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dwf.checked import Checked
from dwf.names import why_no_part
from dwf.settings import Count, Fraction, Name, Positive, Preset, Repeated


@dataclass(frozen=True)
class PublishedConfig(Checked):
    """Accuracy that a published method reached, beside that of the networks it learnt from."""

    accuracy: Fraction
    """Mean accuracy of its networks."""
    originals: Fraction
    """Mean accuracy of the networks that it learnt from, in the same source."""
    networks: str
    """Networks and data that these are of."""
    source: str
    """Paper and table, or whatever else says so."""

    @property
    def shortfall(self) -> float:
        """How far its networks stayed below those that it learnt from; a share of 1."""
        return self.originals - self.accuracy


@dataclass(frozen=True)
class StepsConfig(Checked):
    """Steps of training that are given, in place of those that the budget allows."""

    codec: Count | None = None
    """Steps of the codec, where it trains; default: by the budget."""
    density: Count | None = None
    """Steps of the density, where it trains; default: by the budget."""


@dataclass(frozen=True)
class RowConfig(Checked):
    """A generator that is trained, or networks that somebody else's generator has made."""

    generator: Annotated[str, Preset("generator")] | None = None
    """Settings file of a generator; its zoo is that of the audit."""
    samples: str | None = None
    """Networks that are there: a folder of files of networks (`.safetensors .pt .npz`), or a
    report.json on the same zoo, whose samples are taken as they are."""
    sample: Annotated[str, Preset("sample")] | None = None
    """Settings file of drawing networks from this generator; default: the audit's."""
    zoo: Name | None = None
    """The one zoo of the audit that this row is of, by its file's name; default: each."""
    steps: StepsConfig = field(default_factory=StepsConfig)
    """Steps of training that are given: as an earlier audit has them, whose bytes come again."""
    published: PublishedConfig | None = None
    """Accuracy that the method reached where it was published; default: none is known."""

    def __post_init__(self):
        if (self.generator is None) == (self.samples is None):
            raise ValueError(
                f"generator = {self.generator!r} and samples = {self.samples!r}: a row is one of "
                "the two: give a settings file of a generator, or networks"
            )
        if self.samples is not None and self.sample is not None:
            raise ValueError(
                f"sample = {self.sample!r} draws from a generator, and the networks of "
                f"{self.samples!r} are drawn already: leave it out"
            )


@dataclass(frozen=True)
class AuditConfig(Checked):
    """Many generators on the same zoos under one budget, and every null arm beside them."""

    zoos: tuple[Annotated[str, Preset("zoo")], ...]
    """Settings file of each zoo; a finished zoo of these settings in zoos/ is taken."""
    rows: dict[str, RowConfig]
    """Generators by name, and networks of others'."""
    sample: Annotated[str, Preset("sample")]
    """Settings file of drawing networks."""
    evaluate: Annotated[str, Preset("evaluate")]
    """Settings file of the report: baselines and how many of each."""
    align: Annotated[str, Preset("align")] | None = None
    """Settings file of the alignment; default: each zoo's own frame."""
    budget_minutes: Positive = 4.0
    """Minutes of training of each row, of its codec and density together; fewer where its settings
    file asks for fewer steps than fit."""
    leave_out: tuple[str, ...] = ()
    """Rows that are left out, by name."""
    set: Annotated[tuple[str, ...], Repeated()] = ()
    """Settings of stages in place of their files': `STAGE.SETTING=VALUE`; of one file
    `generator[FILE].SETTING=VALUE`."""

    def __post_init__(self):
        labels = self.labels
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"zoos = {list(self.zoos)}: give one or more, each by another name")
        if unknown := [name for name in self.leave_out if name not in self.rows]:
            raise ValueError(f"leave_out = {unknown}: the rows are {', '.join(self.rows)}")
        if not self.chosen:
            raise ValueError("rows: none is left, an audit needs one or more")
        for name, row in self.chosen.items():
            if why_no_part(name) or name in (*labels, *(f"{one}-aligned" for one in labels)):
                raise ValueError(f"rows.{name}: its name must be no path and not that of a zoo")
            if row.zoo is not None and row.zoo not in labels:
                raise ValueError(f"rows.{name}.zoo = {row.zoo!r}: the zoos are {', '.join(labels)}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each zoo: that of its file."""
        return tuple(Path(file).stem for file in self.zoos)

    @property
    def chosen(self) -> dict[str, RowConfig]:
        """The rows that are not left out."""
        return {name: row for name, row in self.rows.items() if name not in self.leave_out}

    def rows_of(self, label: str) -> dict[str, RowConfig]:
        """Return the rows of a zoo."""
        return {name: row for name, row in self.chosen.items() if row.zoo in (None, label)}
