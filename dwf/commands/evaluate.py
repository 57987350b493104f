"""Score generated networks against the zoo they were learnt from: reports/NAME/.

dwf evaluate --zoo mnist_mlp-aligned --samples mnist_mlp-samples
"""

from collections.abc import Sequence

from dwf import settings
from dwf.commands.beginning import begins
from dwf.evaluation.config import EvaluateConfig
from dwf.metrics import log_to_stderr

DEFAULT = "default"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, evaluate, report."""
    log_to_stderr()
    parsed = settings.parse(
        EvaluateConfig,
        DEFAULT,
        argv=argv,
        command="evaluate",
        about=__doc__,
        folder="reports",
        named="{zoo}",
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    from dwf.evaluation.stage import evaluate, plan, report

    folder = launch.root / "reports" / name
    if begins(parsed, plan(config, launch.root, name=name), folders=(folder,)):
        report(evaluate(config, launch.root, name=name), folder)
