"""The whole way with one command; a finished stage is skipped. Several ways, one after the other.

dwf pipeline --config mnist_mlp
dwf pipeline --config digits_neurons --set generator.density.training.steps=2000
dwf pipeline --config FILE FILE    # then one summary: reports/summary.md, summary.csv
"""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from dwf import settings
from dwf.cluster.config import ClusterLaunch, words_of
from dwf.commands import COMMANDS
from dwf.commands.overwrite import make_room
from dwf.commands.time_left import TimeLeft
from dwf.errors import ConfigError, DwfError
from dwf.flags import flag_of
from dwf.metrics import part_of, print_table
from dwf.names import expanded
from dwf.pipeline import STAGES, Command, PipelineConfig, begin, commands
from dwf.plain import visible
from dwf.screen import kept, kept_in
from dwf.summary import Summary

DEFAULT = "mnist_mlp"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one pipeline; or several, each whatever becomes of the others, and sum them up."""
    words = sys.argv[1:] if argv is None else argv
    files, others = settings.take_files(words, PipelineConfig, ClusterLaunch)
    if len(files) < 2:
        run(parse(words))
        return
    if flag_of(others, "--name") or {"--resume", "--resume=true"} & {*others}:
        raise ConfigError(f"--name and --resume are of one pipeline, and here are {len(files)}")
    is_dry, root = "--dry-run" in others, expanded(flag_of(others, "--root") or "")
    summary = Summary(root, done="planned" if is_dry else "finished")
    for file in files:
        with summary.following(Path(file).stem) as given:
            parsed = parse(["--config", file, *others])
            given += commands(parsed.config, parsed.name)
            with kept():
                run(parsed)
    if not is_dry:
        print(f"summary: {summary.write()}")
    summary.refuse_failed()


def parse(argv: Sequence[str] | None) -> settings.Parsed[PipelineConfig]:
    """Understand the command line of one pipeline."""
    how = {"folder": "pipelines", "flags": ClusterLaunch, "command": "pipeline", "about": __doc__}
    return settings.parse(PipelineConfig, DEFAULT, argv=argv, **how)


def run(parsed: settings.Parsed[PipelineConfig]) -> None:
    """Give each command of a pipeline."""
    launch, folder = parsed.launch, parsed.launch.root / "pipelines" / parsed.name
    given, elsewhere = list(commands(parsed.config, parsed.name)), words_of(launch)
    if not launch.dry_run:
        make_room(launch, launch.root / "pipelines" / parsed.name)
    begin(parsed)
    if elsewhere and not any(STAGES[command.stage].submits for command in given):
        raise ConfigError(f"{elsewhere[0]} is of stages that train networks; here is none")
    common = ["--root", str(launch.root)] + ["--dry-run"] * launch.dry_run + ["--all"] * launch.all
    common += ["--overwrite"] * launch.overwrite
    common += ["--track", *launch.track]
    left, refused = TimeLeft(folder, given, elsewhere=bool(elsewhere)), dict[tuple[str, str], str]()
    with nullcontext() if launch.dry_run else kept_in(folder):
        for number, command in enumerate(given):
            words = command.flags + common
            words += elsewhere if STAGES[command.stage].submits else []
            start = time.monotonic()
            print(f"\n{left.line(number)}\n$ dwf {command.stage} {shlex.join(words)}", flush=True)
            with part_of(left.at(number)):
                try:
                    COMMANDS[command.stage].run(words)
                except DwfError as error:
                    if not launch.dry_run:
                        raise
                    refused[command.stage, command.name] = str(error)
            print(f"{command.stage}: {time.monotonic() - start:.1f} s")
            if not launch.dry_run:
                left.took(number, time.monotonic() - start)
    if launch.dry_run:
        _foretell(given, launch.root, refused=refused)


def _foretell(
    given: Sequence[Command], root: Path, *, refused: Mapping[tuple[str, str], str]
) -> None:
    """Print what the stages will take, one by one and together; raise where one would fail.

    Args:
        given: the commands.
        root: folder that holds zoos/ and runs/.
        refused: stage and name of each command whose own dry run failed -> why.
    """
    from dwf.folders.forecast import COLUMNS, forecast, sum_of

    found = forecast(given, root)
    print("\nestimated on one usual core; - is not estimated, and what is there is not made again:")
    print_table(list(COLUMNS), [*(one.cells for one in found), sum_of(found)])
    failing = []
    for one in found:
        said = refused.get((one.stage, one.name))
        for problem in one.problems or ([said] if said else []):
            print(f"WILL FAIL: {one.stage} {one.name}: {visible(problem)}")
        if one.problems or said:
            failing.append(f"{one.stage} {one.name}")
    if failing:
        raise ConfigError(f"{', '.join(failing)} would fail, as is told above: mend the settings")
