"""The whole way with one command; a finished stage is skipped.

python launch/pipeline.py --config configs/pipeline/mnist_mlp.yaml
"""

import importlib
import shlex
import time
from collections.abc import Sequence

from dwf import settings
from dwf.errors import NotAZoo, exit_cleanly
from dwf.generators.plan import missing_zoos
from dwf.pipeline import PipelineConfig, commands
from dwf.run_folder import RunFolder
from dwf.trust import code_in, refuse_stranger
from dwf.zoo.config import zoos_in

DEFAULT = "configs/pipeline/mnist_mlp.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then give each command."""
    parsed = settings.parse(PipelineConfig, DEFAULT, argv=argv, folder="pipelines")
    config, launch, name = parsed.config, parsed.launch, parsed.name
    if launch.resume and config.zoo:  # a file that a folder names, not the user
        zoos = zoos_in(settings.read_yaml(config.zoo), source=config.zoo)
        for target in code_in(zoos):
            refuse_stranger(target, f"{config.zoo}: network.target")
    zoos, made = launch.root / "zoos", (name, f"{name}-aligned")
    missing = [said for file in config.generators for said in missing_zoos(file, zoos, made=made)]
    if missing and not launch.dry_run:
        raise NotAZoo("\n".join(missing))
    for said in missing:
        print(said)
    if not launch.dry_run:
        RunFolder(launch.root / "pipelines" / name, config)
    common = ["--root", str(launch.root)] + ["--dry-run"] * launch.dry_run
    common += ["--track", *launch.track] if launch.track else []
    common += [] if config.seed is None else ["--seed", str(config.seed)]
    for command in commands(config, name):
        words = command.flags + common
        print(f"\n$ python launch/{command.stage}.py {shlex.join(words)}", flush=True)
        start = time.monotonic()
        importlib.import_module(command.stage).main(words)
        print(f"{command.stage}: {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    exit_cleanly(main)
