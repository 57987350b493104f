"""A Python that has no library beyond a few: processes begin with the `sitecustomize` made here."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from dwf.extras import EXTRAS

ROOT = Path(__file__).parent.parent
THERE = ("torch", "torchvision", "torchdiffeq", "scipy", "h5py", "PyYAML", "rich", "safetensors")
THERE += ("scikit-learn", "numpy", "Pillow", "threadpoolctl")
"""Libraries with which the tests of the GPU run, beside pytest; the last three come with others."""


# Not by None in `sys.modules`, which scikit-learn takes for a module that was imported.
_NOT_FOUND = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec

class Finder:  # no function, which pytest would take for a method of its own
    def __call__(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else found(name, path, target)

PathFinder.find_spec = Finder()
"""


def lacking() -> list[str]:
    """Return what dwf can use beyond `THERE`, by the names that are imported."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (core,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "install_requires"
    ]
    names = {re.split(r"[\[<>=]", line)[0] for line in ast.literal_eval(core.value)} - set(THERE)
    return sorted(names | {name for packages in EXTRAS.values() for name in packages})


def run_bare(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run Python on some words where `lacking()` is not installed, in the checkout.

    Args:
        folder: takes the `sitecustomize.py`.
        words: what follows `python`.
    """
    (folder / "sitecustomize.py").write_text(_NOT_FOUND.format(names=lacking()))
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
