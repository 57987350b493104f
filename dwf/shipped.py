"""Files that come with dwf beside its code: presets and Slurm scripts.

In a checkout they lie in `configs/` and `slurm/`; an installed package holds a copy of both folders
in `dwf/files/`, which `setup.py` puts there.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_COPIES = _PACKAGE / "files"

ROOT = _COPIES if _COPIES.is_dir() else _PACKAGE.parent
"""Folder in which names as `configs/zoo/iris_mlp.yaml` and `slurm/zoo.sh` mean what is shipped."""
CONFIGS = ROOT / "configs"
"""Folder of the presets: `STAGE/NAME.yaml`."""
SLURM = ROOT / "slurm"
"""Folder of the scripts for `sbatch`."""


def here_or_shipped(file: Path | str) -> Path:
    """Return a file as it is named, where it exists, else the shipped one of that name."""
    return Path(file) if Path(file).exists() else ROOT / file
