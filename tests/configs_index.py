"""Write configs/README.md: every settings file with what its header says was measured.

python tests/configs_index.py --write
"""

import argparse
from pathlib import Path

from dwf.headers import presets_of

ROOT = Path(__file__).parent.parent
INDEX = ROOT / "configs" / "README.md"
FOLDERS = {
    "pipeline": ("The whole way with one command: `launch/pipeline.py`.", "start"),
    "zoo": ("Zoos of networks: `launch/zoo.py`.", "zoos"),
    "zoo/families": ("Zoos of several architectures at once: `launch/zoo.py`.", "zoos"),
    "import": ("Zoos of networks that others trained: `launch/import.py`.", "import_export"),
    "align": ("One symmetry frame for a zoo: `launch/align.py`.", "alignment"),
    "generator": ("Codec and density: `launch/generator.py`.", "generators"),
    "sample": ("Drawing networks: `launch/sample.py`.", "generators"),
    "evaluate": ("The report: `launch/evaluate.py`.", "evaluation"),
    "measure": ("Properties of a zoo's networks: `launch/measure.py`.", "predictors"),
    "export": ("Networks for other tools: `launch/export.py`.", "import_export"),
    "finetune": ("Further training on another task: `launch/finetune.py`.", "transfer"),
    "predictor": ("Properties told from weights: `launch/predictor.py`.", "predictors"),
    "sweep": ("Many settings: `launch/sweep.py`.", "sweeps"),
    "audit": ("Many generators under one budget: `launch/audit.py`.", "audit"),
    "cluster": ("A site, for `--cluster` or `$DWF_CLUSTER`.", "cluster"),
}
"""Folder -> what its files are for, and the page about it."""
INTRODUCTION = """\
# Settings files

A settings file is a claim: its header says what it is, what was measured, on which hardware, and
the command. This page repeats the first sentence and the measurement of each; the headers say
more. Give a file by `--config`; flags take the place of what it says.

Written from the headers by `python tests/configs_index.py --write` (`make format` does it); a test
holds it.
"""
ENDING = """\
## deepspeed

DeepSpeed's own settings as JSON files, for `training.deepspeed`: ZeRO 1, 2 and 3, and 2 and 3 with
offload. [docs/cluster.md](../docs/cluster.md#training-on-several-gpus-or-nodes)
"""


def table(folder: str) -> str:
    """Return the rows of one folder's files as Markdown."""
    lines = ["| file | what | measured |", "|---|---|---|"]
    for preset in presets_of(folder):
        cells = (cell.replace("|", r"\|") for cell in preset.said)
        lines.append(f"| [{preset.file.stem}]({folder}/{preset.file.name}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def index() -> str:
    """Return the text of configs/README.md."""
    parts = [
        f"## {folder}\n\n{words} [docs/{page}.md](../docs/{page}.md)\n\n{table(folder)}\n"
        for folder, (words, page) in FOLDERS.items()
    ]
    return "\n".join([INTRODUCTION, *parts, ENDING])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it; else print it")
    if parser.parse_args().write:
        INDEX.write_text(index())
    else:
        print(index(), end="")


if __name__ == "__main__":
    main()
