"""The whole way with one command; a finished stage is skipped.

python launch/pipeline.py --config configs/pipeline/mnist_mlp.yaml
"""

import importlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dwf import settings
from dwf.errors import NotAZoo, exit_cleanly
from dwf.generators import plan
from dwf.run_folder import RunFolder
from dwf.settings import Whole


@dataclass(frozen=True)
class PipelineConfig:
    """The settings file of each stage."""

    zoo: str
    align: str
    generators: tuple[str, ...]
    sample: str
    evaluate: str
    seed: Whole | None = None
    """Takes the place of every stage's seed."""


def commands(config: PipelineConfig, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each stage and its flags; generators are told apart by their files' names."""
    aligned, samples = f"{name}-aligned", []
    yield "zoo", ["--config", config.zoo, "--name", name]
    yield "align", ["--config", config.align, "--name", aligned, "--zoo", name]
    for file in config.generators:
        run = name if Path(file).stem == name else f"{name}-{Path(file).stem}"
        samples.append(f"{run}-samples")
        yield "generator", ["--config", file, "--name", run, "--zoo", aligned]
        yield "sample", ["--config", config.sample, "--name", samples[-1], "--generator", run]
    flags = ["--name", name, "--zoo", aligned, "--samples", *samples]
    yield "evaluate", ["--config", config.evaluate, *flags]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then give each command."""
    default = "configs/pipeline/mnist_mlp.yaml"
    parsed = settings.parse(PipelineConfig, default, argv, folder="pipelines")
    zoos = parsed.launch.root / "zoos"
    made = parsed.name, f"{parsed.name}-aligned"
    files = parsed.config.generators
    missing = [said for file in files for said in plan.missing_zoos(file, zoos, made)]
    if missing and not parsed.launch.dry_run:
        raise NotAZoo("\n".join(missing))
    for said in missing:
        print(said)
    if not parsed.launch.dry_run:
        RunFolder(parsed.launch.root / "pipelines" / parsed.name, parsed.config)
    common = ["--root", str(parsed.launch.root)] + ["--dry-run"] * parsed.launch.dry_run
    common += [] if parsed.config.seed is None else ["--seed", str(parsed.config.seed)]
    for stage, flags in commands(parsed.config, parsed.name):
        print(f"\n$ python launch/{stage}.py {shlex.join(flags + common)}", flush=True)
        start = time.monotonic()
        importlib.import_module(stage).main(flags + common)
        print(f"{stage}: {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    exit_cleanly(main)
