"""Fit a generator, codec and density, to a zoo's training networks: runs/NAME.

python launch/generator.py --config configs/generator/mnist_mlp.yaml
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.errors import exit_cleanly
from dwf.generators.config import GeneratorConfig
from dwf.metrics import log_to_stderr


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit."""
    parsed = settings.parse(GeneratorConfig, "configs/generator/mnist_mlp.yaml", argv, "runs")
    log_to_stderr()
    from dwf.generators.stage import describe_plan, fit_generator

    launch, config = parsed.launch, parsed.config
    print(describe_plan(config, launch.root))
    if launch.dry_run:
        print(parsed.describe())
        return
    preemption.watch()
    fit_generator(config, launch.root, parsed.name)
    print(f"generator in {launch.root / 'runs' / parsed.name}")


if __name__ == "__main__":
    exit_cleanly(main)
