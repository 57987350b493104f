"""Draw networks from a generator, as the zoo zoos/NAME (default GENERATOR-samples).

python launch/sample.py --generator mnist_mlp --count 100
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.errors import exit_cleanly
from dwf.generators.config import SampleConfig
from dwf.metrics import log_to_stderr


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, draw."""
    parsed = settings.parse(SampleConfig, "configs/sample/default.yaml", argv, "zoos")
    launch, config = parsed.launch, parsed.config
    name = launch.name or f"{config.generator}-samples"
    log_to_stderr()
    runs, zoos = launch.root / "runs", launch.root / "zoos"
    best = f", the best of {config.drawn}" if config.drawn > config.count else ""
    asked = "" if config.condition is None else f" of validation accuracy {config.condition:g}"
    asked += f", guidance {config.guidance:g}" * (config.guidance != 1)
    asked += f", of the architecture of {config.zoo}" * (config.zoo is not None)
    print(f"{config.count} networks{asked}{best}: {runs / config.generator} -> {zoos / name}")
    if launch.dry_run:
        print(parsed.describe())
        return
    from dwf.generators.stage import sample_networks

    preemption.watch()
    zoo = sample_networks(config, launch.root, name)
    print(f"{len(zoo)} rows in {zoo.path}")


if __name__ == "__main__":
    exit_cleanly(main)
