"""Record the scaling study: what a sweep over zoo sizes and training steps came to.

python launch/sweep.py --config configs/sweep/generalisation.yaml
python benchmarks/generalisation.py [--name generalisation] [--root FOLDER] [--hardware TEXT]

Takes the numbers of a finished sweep, measures nothing: benchmarks/results/NAME.{json,png,md}. Give
it on the machine that ran the sweep, or say its hardware.
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path

from run import HERE, hardware

from dwf.errors import ConfigError, exit_cleanly
from dwf.plain import Json
from dwf.run_folder import write_json, write_text
from dwf.sweeps.report import SweepReport
from dwf.sweeps.trial import read_records

_ROW_LEFT_OUT = ("generator_name", "samples_name", "reason")


def main() -> None:
    """Read the sweep's folder, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="generalisation", help="the sweep's")
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds sweeps/")
    parser.add_argument("--hardware", default=None, help="default: of this machine")
    options = parser.parse_args()
    folder = options.root / "sweeps" / options.name
    record(folder, HERE / "results", machine=options.hardware or hardware())
    print(f"recorded: {HERE / 'results' / options.name}.json, .png, .md")


def record(folder: Path, results: Path, *, machine: str) -> None:
    """Write a finished sweep's record.

    Args:
        folder: the sweep's.
        results: where the record goes, under the sweep's name.
        machine: its hardware, in words.

    Raises:
        ConfigError: the sweep is not finished, or no grid over numbers.
    """
    missing = [name for name in ("done.json", "curves.png", "curves.md") if not _has(folder, name)]
    if missing:
        why = "is not finished" if "done.json" in missing else "is no grid over numbers"
        raise ConfigError(
            f"{folder} {why} ({missing[0]} is missing): run python launch/sweep.py --config "
            f"configs/sweep/{folder.name}.yaml, and name the sweep by --name and --root"
        )
    conditions = _conditions(folder) | {"hardware": machine}
    report, results = SweepReport.load(folder), results / folder.name
    rows = [
        {key: value for key, value in row.items() if key not in _ROW_LEFT_OUT}
        for row in report.rows
    ]
    measured = {"seconds": _seconds(folder), "trials": rows, "references": report.references}
    write_json(results.with_suffix(".json"), conditions | measured)
    said = "".join(f"- {key}: {_words(value)}\n" for key, value in conditions.items())
    text = (folder / "curves.md").read_text(encoding="utf-8")
    write_text(results.with_suffix(".md"), f"{text}\n## How this was measured\n\n{said}")
    shutil.copyfile(folder / "curves.png", results.with_suffix(".png"))


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _conditions(folder: Path) -> dict[str, Json]:
    """What ran: the sweep's commands, commit and packages of the last."""
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    commands = dict.fromkeys((folder / "command.txt").read_text(encoding="utf-8").splitlines())
    return {
        "command": "; ".join(f"python {command}" for command in commands),
        "commit": environment["commit"],
        "packages": environment["packages"],
    }


def _seconds(folder: Path) -> dict[str, float]:
    """Seconds that all trials spent in each stage, whatever ran beside them."""
    seconds: dict[str, float] = defaultdict(float)
    for one in read_records(folder).values():
        for stage, spent in one["seconds"].items():
            seconds[stage] += spent
    return {stage: round(spent, 1) for stage, spent in seconds.items()}


def _words(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


if __name__ == "__main__":
    exit_cleanly(main)
