"""Draw networks from a generator, as the zoo zoos/NAME (default GENERATOR-samples).

dwf sample --generator mnist_mlp --count 100
dwf sample --generator sane_cnn_mnist --network configs/zoo/sane_cnn_mnist.yaml
"""

from collections.abc import Sequence

from dwf import preemption, settings
from dwf.generators.config import SampleConfig
from dwf.metrics import log_to_stderr

DEFAULT = "configs/sample/default.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, draw, report."""
    parsed = settings.parse(
        SampleConfig,
        DEFAULT,
        argv=argv,
        folder="zoos",
        named="{generator}-samples",
        from_files=["network"],
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    log_to_stderr()
    from dwf.generators.sample_stage import plan, report, sample_networks

    print(plan(config, launch.root, name=name))
    if launch.dry_run:
        print(parsed.describe())
        return
    preemption.watch()
    report(sample_networks(config, launch.root, name=name))
