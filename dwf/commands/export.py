"""Export networks of a zoo for other tools: exports/NAME (default ZOO-FORMAT), or any folder.

dwf export --zoo mnist_mlp --format safetensors --best 10
"""

from collections.abc import Sequence

from dwf import settings
from dwf.commands.beginning import begins
from dwf.exporters.config import ExportConfig
from dwf.metrics import log_to_stderr

DEFAULT = "default"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, export, report."""
    log_to_stderr()
    parsed = settings.parse(
        ExportConfig,
        DEFAULT,
        argv=argv,
        command="export",
        about=__doc__,
        folder="exports",
        named="{zoo}-{format}",
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.exporters.stage import export_networks, folder_of, plan, report

    folder = folder_of(config, launch.root, name=name)
    if begins(parsed, plan(config, launch.root, name=name), folders=(folder,)):
        report(export_networks(config, launch.root, name=name))
