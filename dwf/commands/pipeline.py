"""The whole way with one command; a finished stage is skipped. Several ways, one after the other.

dwf pipeline --config configs/pipeline/mnist_mlp.yaml
dwf pipeline --config FILE FILE    # then one summary: reports/summary.md, summary.csv
"""

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from dwf import settings
from dwf.cluster.config import ClusterLaunch, words_of
from dwf.commands import COMMANDS
from dwf.commands.time_left import TimeLeft
from dwf.errors import ConfigError
from dwf.flags import flag_of, values_of
from dwf.metrics import part_of
from dwf.pipeline import STAGES, PipelineConfig, begin, commands
from dwf.screen import kept, kept_in
from dwf.summary import Summary

DEFAULT = "configs/pipeline/mnist_mlp.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one pipeline; or several, each whatever becomes of the others, and sum them up."""
    files, others = values_of(sys.argv[1:] if argv is None else argv, "--config")
    if len(files) < 2:
        run(parse(argv))
        return
    if "--resume" in others or flag_of(others, "--name"):
        raise ConfigError(f"--name and --resume are of one pipeline; --config has {len(files)}")
    is_dry, root = "--dry-run" in others, Path(flag_of(others, "--root") or "")
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
    how = {"folder": "pipelines", "flags": ClusterLaunch}
    return settings.parse(PipelineConfig, DEFAULT, argv=argv, **how)


def run(parsed: settings.Parsed[PipelineConfig]) -> None:
    """Give each command of a pipeline."""
    launch, folder = parsed.launch, parsed.launch.root / "pipelines" / parsed.name
    begin(parsed)
    given, elsewhere = list(commands(parsed.config, parsed.name)), words_of(launch)
    if elsewhere and not any(STAGES[command.stage].submits for command in given):
        raise ConfigError(f"{elsewhere[0]} is of stages that train networks; here is none")
    common = ["--root", str(launch.root)] + ["--dry-run"] * launch.dry_run
    common += ["--track", *launch.track]
    left = TimeLeft(folder, given, elsewhere=bool(elsewhere))
    with nullcontext() if launch.dry_run else kept_in(folder):
        for number, command in enumerate(given):
            words = command.flags + common
            words += elsewhere if STAGES[command.stage].submits else []
            start = time.monotonic()
            print(f"\n{left.line(number)}\n$ dwf {command.stage} {shlex.join(words)}", flush=True)
            with part_of(left.at(number)):
                COMMANDS[command.stage].run(words)
            print(f"{command.stage}: {time.monotonic() - start:.1f} s")
            if not launch.dry_run:
                left.took(number, time.monotonic() - start)
