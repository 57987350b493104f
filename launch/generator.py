"""Fit a generator, codec and density, to a zoo's training networks: runs/NAME.

python launch/generator.py --config configs/generator/mnist_mlp.yaml
mpirun -n 4 python launch/generator.py    # ranks share the codec's passes over the zoo
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.generators.config import GeneratorConfig
from dwf.metrics import log_to_stderr
from dwf.ranks import exit_together, find_ranks


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit."""
    parsed = settings.parse(GeneratorConfig, "configs/generator/mnist_mlp.yaml", argv, "runs")
    is_first = find_ranks().is_first
    if is_first:
        log_to_stderr()
    from dwf.generators.stage import describe_plan, fit_generator

    launch, config = parsed.launch, parsed.config
    if is_first:
        print(describe_plan(config, launch.root))
    if launch.dry_run:
        if is_first:
            print(parsed.describe())
        return
    preemption.watch()
    fit_generator(config, launch.root, parsed.name)
    if is_first:
        print(f"generator in {launch.root / 'runs' / parsed.name}")


if __name__ == "__main__":
    exit_together(main)
