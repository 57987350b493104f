"""Files that come with dwf beside its code: presets and Slurm scripts.

In a checkout they lie in `configs/` and `slurm/`; an installed package holds copies of both.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).parent.parent
_PACKAGE = Path(__file__).parent


def _folder(in_checkout: str, in_package: str) -> Path:
    there = _CHECKOUT / in_checkout
    is_checkout = (_CHECKOUT / "setup.py").exists() and there.is_dir()
    return there if is_checkout else _PACKAGE / in_package


CONFIGS = _folder("configs", "presets")
"""Folder of the presets: `STAGE/NAME.yaml`."""
SLURM = _folder("slurm", "slurm")
"""Folder of the scripts for `sbatch`."""
