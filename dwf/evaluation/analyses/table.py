"""The analyses that settings may name, and how they are carried out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from dwf import preemption
from dwf.evaluation.analyses.analysis import Analysis
from dwf.evaluation.analyses.checkpoints import checkpoints
from dwf.evaluation.analyses.classes import classes
from dwf.evaluation.analyses.logits import logits
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.analyses.methods import methods
from dwf.evaluation.analyses.reverse import reverse
from dwf.evaluation.analyses.wrong_answers import wrong_answers
from dwf.evaluation.report import STYLE, Analysed, plain, save_figures

ANALYSES = {
    "reverse": Analysis("Accuracy on the way from noise", reverse),
    "wrong_answers": Analysis("Similarity of wrong answers", wrong_answers),
    "classes": Analysis("Classes that networks answer", classes),
    "checkpoints": Analysis("Similarity against the number of networks learnt from", checkpoints),
    "logits": Analysis("Distances of logits", logits),
    "methods": Analysis("Methods and measures", methods),
}
"""The analyses, in the order of a report: a new one is a function, its name here and in
`config.AnalysisName`."""


def chosen(names: Sequence[str]) -> list[str]:
    """Return which analyses settings name, in order; `all` names every one."""
    return [name for name in ANALYSES if name in names or "all" in names]


def analyse(names: Sequence[str], material: Material, *, folder: Path) -> dict[str, Analysed]:
    """Carry out analyses and write their figures: analysis_*.png.

    Args:
        names: as settings have them.
        material: what they look at.
        folder: of the report.

    Returns:
        Name -> what a report keeps and shows of it.
    """
    found: dict[str, Analysed] = {}
    for name in chosen(names):
        if preemption.is_asked():
            preemption.stop()
        analysis = ANALYSES[name]
        with matplotlib.rc_context(STYLE):
            seen = analysis.look(material)
            files = {f"analysis_{file}": drawn for file, drawn in seen.figures.items()}
            captions = {caption: path.name for caption, path in save_figures(files, folder).items()}
        found[name] = Analysed(
            title=analysis.title,
            words=list(seen.words),
            columns=list(seen.columns),
            rows=[list(row) for row in seen.rows],
            numbers=plain(seen.numbers),
            figures=captions,
        )
    return found
