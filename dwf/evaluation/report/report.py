"""The report: every set's numbers, summarised over all its networks, and written for people.

    reports/NAME/report.json   all numbers, of every network; equal runs write equal bytes
    reports/NAME/report.md     the tables;  report.html: one page with the figures in it
    reports/NAME/*.png, figures/   the figures, see `drawing`; timing.json: see `record`

Shape suffixes: S networks of a set, C axes of the map.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dwf.dataframes import dataframe
from dwf.errors import ConfigError
from dwf.evaluation.measure import Limits
from dwf.evaluation.report.analysed import Analysed
from dwf.evaluation.report.asked import (
    ASKED_TEXT,
    CATEGORY_COLUMNS,
    NUMBER_COLUMNS,
)
from dwf.evaluation.report.columns import (
    COLUMNS,
    PROFILE_COLUMNS,
    STATISTICS_COLUMNS,
    TEST_COLUMNS,
    cells,
    headings,
    hints,
    how_to_read,
    share_cell,
    shown,
)
from dwf.evaluation.report.fits import FIT_COLUMNS, fit_rows
from dwf.evaluation.report.numbers import columns_of_networks, columns_of_sets
from dwf.evaluation.report.schema import AGAIN, FORMAT, VERSION, read_report
from dwf.evaluation.report.seeds import seed_groups
from dwf.evaluation.report.sets import NetworkSet, asked_words, plain
from dwf.evaluation.report.split import SPLIT_COLUMNS, split_rows, split_text
from dwf.evaluation.report.words import FIT_TEXT, MARK_RULES, MARKS_TEXT, PROFILE_TEXT
from dwf.files import told_by
from dwf.notebooks import table_html
from dwf.plain import Json, for_markdown
from dwf.run_folder import write_json, write_text

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Cells = list[tuple[str, ...]]
"""Rows of a table."""


@dataclass(frozen=True)
class Report:
    """An evaluation's outcome."""

    name: str
    config: dict[str, Json]
    limits: dict[str, Json]
    """See `Limits`."""
    sets: tuple[NetworkSet, ...]
    """Originals, held-out networks, samples, baselines."""
    headline: tuple[str, ...]
    """Sentences on what the numbers say."""
    facts: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Facts of what was evaluated: zoo, data, alignment, generators, samples."""
    map_share: tuple[float, ...] = ()
    """Share of the training networks' variance along each axis of the map."""
    fits: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Generator -> losses and likelihoods of training and held-out networks; see `fits`."""
    asked: dict[str, list[dict[str, Json]]] = field(default_factory=dict)
    """Conditions asked for against what was drawn: see `asked.asked_against_drawn`."""
    limits_of: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Which part of the training networks generators learnt from -> the limits that these set."""
    analyses: dict[str, Analysed] = field(default_factory=dict)
    """Name of an analysis that settings ask for -> what it found."""

    def of(self, family: str) -> list[NetworkSet]:
        """Return the sets of a family, in order."""
        return [one for one in self.sets if one.family == family]

    @property
    def columns(self) -> tuple[str, ...]:
        """The main table's heading."""
        return headings(shown(COLUMNS, self.sets), self.config["split"])

    @property
    def hints(self) -> tuple[str, ...]:
        """Hints of a page on each column of the main table."""
        return hints(shown(COLUMNS, self.sets))

    @property
    def table(self) -> list[tuple[str, ...]]:
        """The main table's cells, without the heading."""
        return cells(shown(COLUMNS, self.sets), self.sets)

    @property
    def words(self) -> tuple[str, ...]:
        """How to read the main table."""
        return how_to_read(shown(COLUMNS, self.sets))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes under the main table: ensembles, means over seeds, and how samples were drawn."""
        found = [(one, one.summary["ensemble"]) for one in self.sets if "ensemble" in one.summary]
        notes = [_on_subsets(self.limits_of)] if self.limits_of else []
        if found:
            each = "; ".join(f"{one.title} {100 * e['accuracy']:.2f} %" for one, e in found)
            notes.append(
                f"{self.config['split'].capitalize()} accuracy of ensembles of {found[0][1]['n']} "
                f"networks each, drawn from the set (mean of their logits): {each}."
            )
        notes += [group.note for group in seed_groups(self.sets, self.facts)]
        for one in self.sets:
            if one.family == "samples" and one.summary.get("condition"):
                notes.append(_on_condition(one.title, one.summary["condition"]))
            if one.family == "samples" and one.summary.get("temperature"):
                notes.append(_on_temperature(one.title, one.summary["temperature"]))
            if one.summary.get("selection"):
                notes.append(_on_selection(one.title, one.summary["selection"]))
        return tuple(notes)

    @property
    def more_tables(self) -> list[tuple[str, str, list[tuple[tuple[str, ...], Cells]]]]:
        """Sections that not every report has: title, words, and tables (heading, cells)."""
        found = []
        if self.asked:
            tables = ((NUMBER_COLUMNS, "numbers"), (CATEGORY_COLUMNS, "categories"))
            tables = [(columns, self.asked[key]) for columns, key in tables if self.asked[key]]
            made = [(headings(columns), cells(columns, rows)) for columns, rows in tables]
            found.append(("What was asked for, and what was drawn", ASKED_TEXT, made))
        if by := self.config.get("by"):
            made = [(headings(SPLIT_COLUMNS), cells(SPLIT_COLUMNS, split_rows(self.sets, by)))]
            found.append((f"By {by}", split_text(by), made))
        return found

    @property
    def tests_columns(self) -> tuple[str, ...]:
        """The heading of the table of tests passed."""
        return headings(shown(TEST_COLUMNS, self.sets))

    @property
    def tests_table(self) -> list[tuple[str, ...]]:
        """The cells of the table of tests passed."""
        return cells(shown(TEST_COLUMNS, self.sets), self.sets)

    @property
    def profile_columns(self) -> tuple[str, ...]:
        """The heading of the table of profiles."""
        return headings(PROFILE_COLUMNS)

    @property
    def profile_table(self) -> list[tuple[str, ...]]:
        """The cells of the table of profiles."""
        return cells(PROFILE_COLUMNS, (one for one in self.sets if "profile" in one.summary))

    @property
    def marked(self) -> list[NetworkSet]:
        """The sets that have a mark."""
        return [one for one in self.sets if "mark" in one.summary]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each marked set with its mark and why."""
        told = ((one.title, one.summary["mark"]) for one in self.marked)
        return tuple(f"{title}: {mark['name']}. {mark['why']}" for title, mark in told)

    @property
    def fit_table(self) -> list[tuple[str, ...]]:
        """How generators fit, under `FIT_COLUMNS`, by the titles of their samples."""
        titles = self.generator_titles
        return [(titles.get(name, name), *rest) for name, *rest in fit_rows(self.fits)]

    @property
    def generator_titles(self) -> dict[str, str]:
        """Name of a generator -> title of its samples; of several sets its own name."""
        found: dict[str, list[str]] = {}
        for one in self.of("samples"):
            drawn = self.facts.get(f"samples {one.source}", {}).get("generator")
            found.setdefault(drawn, []).append(one.title)
        return {name: titles[0] for name, titles in found.items() if len(titles) == 1}

    @property
    def statistics_table(self) -> list[tuple[str, ...]]:
        """Accuracies with other running statistics of BatchNorm, under `STATISTICS_COLUMNS`.

        Empty where networks have no BatchNorm, or nothing was compared.
        """
        return cells(STATISTICS_COLUMNS, (s for s in self.sets if "batchnorm" in s.summary))

    @property
    def statistics_text(self) -> str:
        """Sentence on what the table of running statistics compares."""
        config = self.config["batchnorm"]
        return (
            f"{self.config['split'].capitalize()} accuracy (%) with other running statistics of "
            "BatchNorm. Own: those in the networks' rows, from their training (or, of samples, "
            "written by their generator). None: mean 0 and variance 1. Reference: the mean over "
            "the training networks. Recalibrated: re-estimated for each network on "
            f"{self.facts['evaluation']['images for BatchNorm']} training images, never on "
            "validation or test images. Everywhere else in this report originals and held-out "
            f"networks are scored with their own, samples and baselines: {config['score']}. "
            "Running statistics take no part in distances, spread, map and noise."
        )

    @property
    def limits_text(self) -> str:
        """The tests in words, with their numbers."""
        limits = Limits.from_json(self.limits)
        text = (
            f"Accurate: accuracy of at least {100 * limits.accuracy:.2f} % (the training networks' "
            "mean minus two standard deviations). Novel: in each measure at least as far from the "
            "training networks as the nearest 1 % of these are from the others, a network being "
            f"left out with all its rows: {_novel(limits)}. Ratios are to the medians of the same; "
            f"that of weights is {limits.unit:.4g}. "
            'Copies and averages are those of the rules under "What the sets are".'
        )
        if limits.left_out:
            text += (
                f" Units of {limits.left_out} are not compared: there behaviour and weights decide "
                "alone."
            )
        return text + "".join(_limits_of(*each) for each in self.limits_of.items())

    def save(self, folder: Path | str) -> None:
        """Write `report.json` and `report.md`."""
        folder = Path(folder)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "headline": list(self.headline),
            "config": self.config,
            "facts": self.facts,
            "limits": self.limits,
            "map_share": list(self.map_share),
            "fits": self.fits,
            "sets": [vars(one) for one in self.sets],
        } | ({"limits_of": self.limits_of} if self.limits_of else {})
        content |= {"asked": self.asked} if self.asked else {}
        if self.analyses:
            content["analyses"] = {name: vars(found) for name, found in self.analyses.items()}
        write_json(folder / "report.json", plain(content))
        write_text(folder / "report.md", for_markdown(self.markdown()))

    @classmethod
    def load(cls, folder: Path | str) -> "Report":
        """Return the report that `save` wrote.

        Raises:
            ConfigError: see `read_report`.
        """
        folder = Path(folder)
        content = read_report(folder / "report.json")
        del content["format"], content["version"]
        with told_by(folder / "report.json", cure=AGAIN, error=ConfigError):
            content["sets"] = tuple(NetworkSet(**one) for one in content["sets"])
            content["headline"] = tuple(content["headline"])
            content["map_share"] = tuple(content["map_share"])
            found = content.pop("analyses", {})
            content["analyses"] = {name: Analysed(**each) for name, each in found.items()}
            return cls(**content)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# Report: {self.name}", *self.headline]
        parts += [markdown_table(self.columns, self.table), *self.notes]
        parts += ["## Which tests are passed", self.limits_text]
        parts += [markdown_table(self.tests_columns, self.tests_table)]
        for title, words, tables in self.more_tables:
            parts += [f"## {title}", words, *(markdown_table(*each) for each in tables)]
        if self.profile_table:
            parts += ["## Under other limits", PROFILE_TEXT]
            parts += [markdown_table(self.profile_columns, self.profile_table)]
        if self.reasons:
            parts += ["## What the sets are", MARKS_TEXT, _bullets(MARK_RULES)]
            parts += ["These sets:", _bullets(self.reasons)]
        if self.fit_table:
            parts += ["## Training against held-out networks", FIT_TEXT]
            parts += [markdown_table(FIT_COLUMNS, self.fit_table)]
        if self.statistics_table:
            parts += ["## Running statistics of BatchNorm", self.statistics_text]
            heading = headings(STATISTICS_COLUMNS)
            parts += [markdown_table(heading, self.statistics_table)]
        for found in self.analyses.values():
            parts += [f"## {found.title}", *found.words]
            if found.rows:
                parts += [markdown_table(found.columns, found.rows)]
            parts += [f"![{caption}]({file})" for caption, file in found.figures.items()]
        parts += ["## How to read this", _bullets(self.words)]
        parts += ["## What was evaluated"]
        for title, facts in self.facts.items():
            rows = [(key, str(value)) for key, value in facts.items()]
            parts += [f"### {title}", markdown_table(("fact", "value"), rows)]
        return "\n\n".join(parts) + "\n"

    def to_dataframe(self, of: Literal["sets", "networks"] = "sets") -> "pandas.DataFrame":
        """Return its numbers as a DataFrame.

        Args:
            of: `sets`: a row for each set, with all of its summary; `networks`: a row for each
                network of each set, with every measure.

        Raises:
            ConfigError: `of` is something else.
        """
        makers = {"sets": columns_of_sets, "networks": columns_of_networks}
        if of not in makers:
            raise ConfigError(f"of = {of!r}: expected one of {', '.join(makers)}")
        return dataframe(makers[of](self.sets))

    def plot_novelty(self, ax: "Axes | None" = None) -> "Axes":
        """Draw each network's accuracy against its distance to the nearest training network.

        Args:
            ax: axes of matplotlib to draw into; default: those of a new figure of pyplot.

        Returns:
            The axes.
        """
        from dwf.evaluation.report.figures import draw_novelty

        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots(layout="constrained")[1]
        draw_novelty(ax, self)
        return ax

    def __repr__(self) -> str:
        samples = self.of("samples")
        told = [f"{one.title}: {share_cell(one.share)} good and novel" for one in samples]
        return f"Report({self.name!r}: {'; '.join([f'{len(self.sets)} sets', *told])})"

    def _repr_html_(self) -> str:
        title = f"report {self.name}"
        return table_html(title, self.columns, rows=self.table, words=self.headline)


def _on_subsets(limits_of: Iterable[str]) -> str:
    return (
        f"Some generators learnt from a part of the training networks ({'; '.join(limits_of)}). "
        "Their samples are held against these networks alone: distance, limits, mark and the "
        "baselines that bear their name. Lines and regions of the figures are those of all "
        "training networks, and so is the ceiling."
    )


def _limits_of(subset: str, told: dict[str, Json]) -> str:
    limits = Limits.from_json(told)
    return (
        f" Of a part ({subset}): accuracy of at least {100 * limits.accuracy:.2f} %; "
        f"{_novel(limits)} (the unit of weights is {limits.unit:.4g})."
    )


def _novel(limits: Limits) -> str:
    """Return in words what novel means: ratios to the medians."""
    if limits.single_run:
        return "no limit, as all are of a single run, so that nothing is novel"
    found = [f"weights {_ratio(limits.distance, limits.unit)}"]
    found.append(f"behaviour {_ratio(limits.behaviour, limits.behaviour_unit)}")
    each = zip(limits.layers, limits.units, limits.units_unit, strict=True)
    found += [f"units of {name} {_ratio(limit, unit)}" for name, limit, unit in each]
    return ", ".join(found)


def _ratio(limit: float | None, unit: float) -> str:
    return "without effect" if not limit or not unit else f"{limit / unit:.3f}"


def _on_condition(title: str, told: dict[str, Json]) -> str:
    guidance = told["guidance"]
    words = asked_words(guidance) if isinstance(guidance, dict) else f"{guidance:g}"
    return (
        f"{title} was drawn on conditions: {asked_words(told['asked'])}, with a guidance of "
        f"{words}. That is a part of what the generator has learnt; its dispersion is held against "
        "that of the whole zoo."
    )


def _on_temperature(title: str, temperature: float) -> str:
    return (
        f"{title} was drawn at a temperature of {temperature:g}: from that share of the noise that "
        "was learnt from. It is a part of what the generator has learnt; its dispersion says how "
        "large a part."
    )


def _on_selection(title: str, chosen: dict[str, Json]) -> str:
    rounds, broken = chosen.get("rounds", 1), chosen.get("unusable", 0)
    text = f"{title} is a selection ({chosen['kind']}): {chosen['kept']} networks were kept of "
    text += f"{chosen['drawn']} that were drawn"
    text += f" in {rounds} rounds" if rounds > 1 else ""
    text += f" ({broken} of them unusable)" if broken else ""
    text += ", the most accurate on validation images"
    if "val_accuracy_drawn" in chosen:
        means = ", ".join(f"{100 * mean:.2f} %" for mean in chosen["val_accuracy_drawn"])
        kept = f"{100 * chosen['val_accuracy_kept']:.2f} %"
        text += f"; the mean accuracy on these is {means} of all drawn, {kept} of the kept"
        text += " (rounds in order)" if rounds > 1 else ""
    return text + "."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its first column to the left and the others to the right."""
    rule = "|".join(["---"] + ["---:"] * (len(heading) - 1))
    told = [
        [cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (heading, *rows)
    ]
    head, *others = (" | ".join(row) for row in told)
    lines = [head, rule, *others]
    return "\n".join(f"| {line} |" for line in lines)
