"""Draw networks from a generator, as the zoo zoos/NAME (default GENERATOR-samples).

dwf sample --generator mnist_mlp --count 100
dwf sample --generator sane_cnn_mnist --network sane_cnn_mnist
"""

from collections.abc import Sequence

from dwf import settings
from dwf.commands.beginning import begins
from dwf.generators.config import SampleConfig
from dwf.metrics import log_to_stderr

DEFAULT = "default"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, draw, report."""
    log_to_stderr()
    parsed = settings.parse(
        SampleConfig,
        DEFAULT,
        argv=argv,
        command="sample",
        about=__doc__,
        folder="zoos",
        named="{generator}-samples",
        from_files=["network"],
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.generators.sample_stage import plan, report, sample_networks

    folder = launch.root / "zoos" / name
    if begins(parsed, plan(config, launch.root, name=name), folders=(folder,)):
        report(sample_networks(config, launch.root, name=name))
