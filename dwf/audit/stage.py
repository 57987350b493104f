"""The audit stage: zoos, a row at a time or many at once, then one report on all of them.

    audits/NAME/ZOO/reports/ZOO    the report of a zoo with all its rows; ZOO-part: without some
    audits/NAME/audit.*            the table and the figure, see `table`
    audits/NAME/run/               records

What a row leaves: see `row`. Whoever calls `audit_generators` says where rows run.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import yaml

from dwf.audit.config import AuditConfig
from dwf.audit.figure import CAPTION, EXPLAINED, draw
from dwf.audit.others import find_others
from dwf.audit.row import (
    SETTINGS,
    Audit,
    Unit,
    do_row,
    finished_rows,
    known_as,
    read_record,
    record_path,
    steps_path,
)
from dwf.audit.table import FILE, HOW_TO_READ, AuditReport, Failure, Line, sentences
from dwf.errors import ConfigError, RunConflict, WorkFailed
from dwf.evaluation.report import (
    INDEX,
    LEGEND,
    PROFILE_TEXT,
    Record,
    Report,
    beginning,
    bullets,
    figure,
    legend,
    renew_index,
    save_timing,
    table,
    whole_page,
)
from dwf.evaluation.stage import evaluate
from dwf.flags import making_again, name_and_root
from dwf.generators.plan import describe_sizes, layout_of, parts_that_train
from dwf.metrics import print_report
from dwf.names import folder_in
from dwf.pipeline import STAGES
from dwf.run_folder import LEFTOVERS, RunFolder, hold, sweep, write_text
from dwf.same_settings import differences
from dwf.settings import build, to_dict
from dwf.stages import Product, Runner, Work, run_here, stage
from dwf.sweeps.estimate import in_hours, zoo_seconds
from dwf.sweeps.trial import make_zoo
from dwf.trust import code_in, trust_code

_TABLE_WIDTH = 172


def _is_whole(folder: Path) -> bool:
    return (folder / FILE).exists()


AUDIT = Product("audit", records="run", head=SETTINGS, is_whole=_is_whole)


def plan(config: AuditConfig, root: Path, *, name: str) -> str:
    """Return in words what `audit_generators` would run: zoos, rows, and what they may cost.

    Raises:
        ConfigError: a settings file is wrong, or a generator does not suit the zoo; names the row.
    """
    audit, folder = Audit.of(config), _folder(root, name)
    units = audit.units
    over = sum(record_path(folder, unit).exists() for unit in units)
    lines = [
        f"audit of {len(config.chosen)} rows on {', '.join(config.labels)} -> {folder}",
        f"{len(units)} generators are trained, each for {config.budget_minutes:g} minutes at most: "
        f"{len(units) * config.budget_minutes:g} minutes of one worker"
        + (f"; {over} of them are over and kept" if over else ""),
        "estimated core-hours: "
        + in_hours("zoos", [zoo_seconds(audit.zoo(label)) for label in config.labels]),
    ]
    lines += [line for unit in units for line in _describe(audit, unit, folder)]
    others = {name: row.samples for name, row in config.chosen.items() if row.samples}
    lines += [f"  {name}: the networks of {source}" for name, source in others.items()]
    return "\n".join(lines)


def trust_named(config: AuditConfig) -> None:
    """Trust the code that the zoos' settings files of an audit name, which the user named."""
    audit = Audit.of(config)
    for label in config.labels:
        trust_code(*code_in(audit.zoo(label)))


def audit_generators(
    config: AuditConfig, root: Path | str, *, name: str, run: Runner = run_here
) -> AuditReport:
    """Train all rows and write the report, or go on with one; rows that are over are kept.

    Rows that failed are tried again from their beginning, with what their settings files say now.

    Args:
        config: which zoos, which rows, which budget.
        root: folder that holds zoos/ and audits/.
        name: the audit's name; it is written to root/audits/NAME.
        run: runs the rows, and the units of zoos: `run_here`, or a runner of `dwf.cluster`.

    Returns:
        The report; read from disk where it is finished already.

    Raises:
        ConfigError: a settings file is wrong; names the file.
        RunConflict: the folder holds another audit, or a settings file says other than when it
            began; or another process is at it.
        WorkFailed: rows failed; names each with its reason. The report is on the others.
        Preempted: a signal asked to stop.
    """
    root = Path(root)
    audit, folder = Audit.of(config), _folder(root, name)
    _refuse_wrong_settings(audit)  # what is refused leaves no folder behind
    refuse = partial(_refuse_other_files, audit=audit)
    with stage(AUDIT, folder, config=config, refuse_other=refuse, has_workers=True) as record:
        if record is None:
            return AuditReport.load(folder)
        _begin(audit, folder)
        for label in config.labels:
            _make_zoo(audit, label, root=Path(root), folder=folder, run=run)
    problem = _run_rows(work(root, name=name), run)
    with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
        return _finish(record, problem)


def work(root: Path, *, name: str) -> Work:
    """Return the rows of an audit that has been begun, as units of work."""
    folder = _folder(root, name)
    count = len(Audit.read(folder).units)
    return Work(
        folder=folder,
        count=count,
        unit=do_row,
        finished=finished_rows,
        progress=progress,
        what=f"audit {name}",
        size=count,
        unit_name="rows",
        device="auto",
    )


def progress(folder: Path) -> tuple[float, str]:
    """Return the share of the rows that are over, and how many of these failed."""
    units = Audit.read(folder).units
    records = [found for unit in units if (found := read_record(folder, unit)) is not None]
    failed = sum("reason" in record for record in records)
    return len(records) / len(units), f"{failed} failed" if failed else ""


def report(made: AuditReport, folder: Path) -> None:
    """Print the table of what `audit_generators` found, and where its page lies."""
    for zoo in made.zoos:
        ((title, (heading, rows)), *_) = made.tables(zoo).items()
        print_report(
            f"audit {made.name}, {zoo}: {title}",
            heading,
            rows=rows,
            bold=[line.is_row for line in made.of_zoo(zoo)],
            paragraphs=(),
            width=_TABLE_WIDTH,
        )
    print("\n".join(made.headline))
    print(f"report: {folder / 'audit.html'}")


# --- before ---------------------------------------------------------------------------------------


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "audits", name).absolute()


def _describe(audit: Audit, unit: Unit, folder: Path) -> Iterator[str]:
    """Yield what a row is made of; raise where it does not suit the zoo."""
    yield f"  {unit.row} ({unit.zoo}): {audit.row(unit).generator}"
    zoos, config = folder / unit.zoo / "zoos", audit.generator(unit)
    try:
        told = list(describe_sizes(config, zoos, ranks=1, gpus=None))
    except ConfigError as error:
        raise ConfigError(f"rows.{unit.row}: {error}") from None
    known = layout_of(zoos / config.zoo) is not None
    yield f"    {told[1] if known else told[0]}"
    yield from (f"    {line}" for line in told if line.startswith("WARNING"))


def _refuse_wrong_settings(audit: Audit) -> None:
    for label in audit.config.labels:
        audit.zoo(label)
        audit.evaluate(label, ())
    for unit in audit.units:
        audit.generator(unit)
        audit.sample(unit)


def _refuse_other_files(run: RunFolder, audit: Audit) -> None:
    """Refuse to go on where a settings file says other than when the audit began.

    But those of rows that failed, which are tried anew.
    """
    folder = run.path.parent
    if not (folder / SETTINGS).exists():
        return
    begun = Audit.read(folder)
    failed = _failed_units(begun, folder)
    mended = {known_as("generator", begun.row(unit).generator) for unit in failed}
    for file, said in begun.files.items():
        if file in mended:
            continue
        for key, before, now in differences(said, audit.files.get(file, {})):
            raise RunConflict(
                f"{folder} was begun when {file} had {key} = {before!r}, which is now {now!r}: "
                "change it back, give another --name, or remove the folder"
            )


def _failed_units(audit: Audit, folder: Path) -> list[Unit]:
    records = {unit: read_record(folder, unit) for unit in audit.units}
    return [unit for unit, record in records.items() if record and "reason" in record]


def _begin(audit: Audit, folder: Path) -> None:
    """Keep all that a worker needs to do a row; forget rows that failed."""
    for unit in _failed_units(audit, folder):
        for made in ("runs", "zoos"):
            shutil.rmtree(folder / unit.zoo / made / unit.row, ignore_errors=True)
        steps_path(folder, unit).unlink(missing_ok=True)
        record_path(folder, unit).unlink()
    write_text(folder / SETTINGS, yaml.safe_dump(to_dict(audit.files), sort_keys=False))


def _make_zoo(audit: Audit, label: str, *, root: Path, folder: Path, run: Runner) -> None:
    """Link or train a zoo, and align it."""
    make_zoo(audit.zoo(label), folder / label, name=label, run=run, known=root / "zoos")
    if audit.config.align:
        align = STAGES["align"]
        said = audit.said("align", audit.config.align) | {"zoo": label}
        config = build(align.config, said, source=audit.config.align)
        align.run(config, folder / label, name=audit.frame(label))


def _run_rows(work: Work, run: Runner) -> str:
    """Run the rows; return what kept some from being over, in words."""
    try:
        if work.count:
            run(work)
    except WorkFailed as error:  # those that are over are reported
        return str(error)
    return ""


# --- afterwards -----------------------------------------------------------------------------------


def _finish(record: RunFolder, problem: str) -> AuditReport:
    folder = record.path.parent
    if record.summary is not None and _is_whole(folder):  # another launch was first
        return AuditReport.load(folder)
    audit = Audit.read(folder)
    lines, failed = list[Line](), list[Failure]()
    for label in audit.config.labels:
        mine, others = _of_zoo(audit, label, folder, problem)
        lines += mine
        failed += others
    made = AuditReport(
        name=name_and_root(folder, "audits")[0],
        config=to_dict(audit.config),
        lines=tuple(lines),
        failed=tuple(failed),
        headline=tuple(_headline(audit, lines, failed)),
    )
    _write(made, folder, record)
    if failed:
        raise WorkFailed(
            f"{len(failed)} of the rows of {folder} failed; {folder / 'audit.html'} is on the "
            "others. Mend the cause and give the same command again:\n"
            + "\n".join(f"  {one.title} ({one.zoo}): {one.reason}" for one in failed)
        )
    record.finish(headline=list(made.headline), rows=len(made.rows))
    sweep(folder.rglob(LEFTOVERS))
    return made


def _of_zoo(
    audit: Audit, label: str, folder: Path, problem: str
) -> tuple[list[Line], list[Failure]]:
    """Evaluate a zoo's rows; return the lines, and the rows that have no networks."""
    root, failed, trained = folder / label, list[Failure](), list[Unit]()
    for unit in (each for each in audit.units if each.zoo == label):
        told = read_record(folder, unit)
        reason = told.get("reason", "") if told else problem or "it is not over"
        if reason:
            failed.append(Failure(label, unit.row, reason=reason))
        else:
            trained.append(unit)
    others = find_others(audit.config.rows_of(label), root, zoo=audit.frame(label))
    samples = (*(unit.row for unit in trained), *others.folders.values())
    is_part = bool(failed or others.failed)
    name = f"{label}-part" if is_part else label
    if is_part:  # of other rows, perhaps
        shutil.rmtree(root / "reports" / name, ignore_errors=True)
    rows = (*(unit.row for unit in trained), *others.folders)
    found = evaluate(replace(audit.evaluate(label, samples), label=rows), root, name=name)
    sets, wrong = others.joined(found)
    lines = [Line.of(label, one) for one in sets]
    failed += [Failure(label, row, reason=why) for row, why in (others.failed | wrong).items()]
    by_row = {unit.row: unit for unit in trained}
    return [_judged(audit, line, by_row, found, folder) for line in lines], failed


def _judged(
    audit: Audit, line: Line, trained: dict[str, Unit], found: Report, folder: Path
) -> Line:
    """Return a line with what it was trained for, held against what was published."""
    title = line.one.title
    if not line.is_row:
        return line
    (originals,) = found.of("originals")
    unit = trained.get(title)
    if unit is not None:
        full = parts_that_train(audit.generator(unit))
        told = read_record(folder, unit)
        line = Line(
            line.zoo,
            line.one,
            steps=told["steps"],
            full_steps={part: loop.steps for part, loop in full.items()},
        )
    row = audit.config.chosen.get(title.partition(": ")[0])
    return line.judged(row.published if row else None, originals)


def _headline(audit: Audit, lines: list[Line], failed: list[Failure]) -> Iterator[str]:
    for one in failed:
        yield f"{one.zoo}: the row {one.title} failed: {one.reason}"
    for label in audit.config.labels:
        yield from sentences(label, [line for line in lines if line.zoo == label])


def _seconds(folder: Path) -> float:
    """Return what all rows took together, each as its record tells."""
    audit = Audit.read(folder)
    records = [found for unit in audit.units if (found := read_record(folder, unit))]
    return sum(sum(record.get("seconds", {}).values()) for record in records)


def _write(made: AuditReport, folder: Path, record: RunFolder) -> None:
    drawn = draw(made, folder)
    _, root = name_and_root(folder, "audits")
    save_timing(record.path, _seconds(folder))
    run = Record.read(
        record.path,
        commands=[making_again("audit", folder, parent="audits", records="run")],
        page=folder,
        links=[
            ("all reports", root / INDEX),
            *(
                (f"report on {zoo}", folder / zoo / "reports" / zoo / "report.html")
                for zoo in made.zoos
            ),
        ],
    )
    name, *headline = beginning(made.name, made.headline)
    body = [name, *run.top(), *headline, legend(LEGEND)]
    body += [figure(CAPTION, file, explained=EXPLAINED) for file in drawn.values()]
    for zoo in made.zoos:
        for title, (heading, rows) in made.tables(zoo).items():
            body += [f"<h2>{escape(zoo)}: {title.lower()}</h2>"]
            kinds, told = made.kinds(zoo)[title], made.hints(zoo)[title]
            body += [table(heading, rows, kinds=kinds, hints=told)]
    body += ["<h2>How to read this</h2>", bullets((*HOW_TO_READ, PROFILE_TEXT))]
    body += run.bottom(facts={"settings of this audit": made.config})
    write_text(folder / "audit.html", whole_page(f"{made.name}: an audit of generators", body))
    made.save(folder)
    renew_index(root)
