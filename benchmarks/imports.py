"""Importing a folder of state dicts against a plain loop of `torch.load(weights_only=True)`.

Both read the same files from the page cache; scoring is apart, and timed as a share of its own.
"""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from harness import Result, interleave
from torch import nn

from dwf.datasets.config import DataConfig
from dwf.importers.config import ImportConfig, ImportedData
from dwf.importers.stage import import_zoo
from dwf.networks.config import MLPConfig

_WIDTHS = (64, 16, 10)


def run(quick: bool) -> list[Result]:
    """Files of one small network each: 10,000 in full."""
    count, repeats = (200, 2) if quick else (10_000, 2)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for seed in range(count):
            torch.manual_seed(seed)
            pairs = itertools.pairwise(_WIDTHS)
            state = nn.Sequential(*(nn.Linear(a, b) for a, b in pairs)).state_dict()
            torch.save(state, source / f"net_{seed}.pt")
        numbers = itertools.count()

        def ours(score: tuple[str, ...] = ()) -> None:
            config = ImportConfig(
                str(source),
                ImportedData(DataConfig("digits"), split="unknown"),
                network=MLPConfig(_WIDTHS),
                score=score,
            )
            import_zoo(config, Path(folder), name=f"zoo-{next(numbers)}")

        def loop() -> None:
            for file in source.iterdir():
                torch.load(file, map_location="cpu", weights_only=True)

        seconds = interleave({"import": ours, "loop": loop}, repeats)
        scored = interleave({"import and score": lambda: ours(("val", "test"))}, 1)
    return [
        Result(
            f"imports, {count} state_dict files of 1,210 weights",
            seconds,
            figures={"import and score (s)": scored["import and score"][0]},
            targets={"loop / import": (">=", 0.5)},
        )
    ]
