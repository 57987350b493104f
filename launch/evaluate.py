"""Score generated networks against the zoo they were learnt from: reports/NAME/.

python launch/evaluate.py --zoo mnist_mlp-aligned --samples mnist_mlp-samples
"""

from collections.abc import Sequence

from dwf import preemption
from dwf.errors import exit_cleanly
from dwf.evaluation.config import EvaluateConfig
from dwf.metrics import log_to_stderr, table_console
from dwf.settings import parse

TABLE_WIDTH = 156


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print the table and where the page lies."""
    parsed = parse(EvaluateConfig, "configs/evaluate/default.yaml", argv, "reports")
    config, root = parsed.config, parsed.launch.root
    name = parsed.launch.name or config.zoo
    if parsed.launch.dry_run:
        sets = ", ".join(config.samples) or "no samples"
        print(f"evaluate zoo {config.zoo}: {sets}, and the baselines -> {root / 'reports' / name}")
        print(parsed.describe())
        return
    log_to_stderr()
    preemption.watch()
    from rich.box import SIMPLE
    from rich.table import Table

    from dwf.evaluation.stage import evaluate

    report = evaluate(config, root, name)
    table = Table(*report.columns, title=f"report {name}", box=SIMPLE, padding=(0, 1))
    for column in table.columns[1:]:
        column.justify = "right"
    for row, one in zip(report.table, report.sets, strict=True):
        table.add_row(*row, style="bold" if one.family == "samples" else None)
    console = table_console(TABLE_WIDTH)
    console.print(table)
    for paragraph in (*report.notes, *report.headline):
        console.print(paragraph)
    print(f"report: {root / 'reports' / name / 'report.html'}")


if __name__ == "__main__":
    exit_cleanly(main)
