"""The one page over all zoos, runs and reports of a root folder."""

from pathlib import Path
from typing import Annotated

from dwf.arguments import POSITIONAL
from dwf.errors import ConfigError


def index(root: Annotated[Path, POSITIONAL] = Path(".")) -> None:
    """Write `reports/index.html` over everything in a root folder, and say where it lies.

    Stages write it anew whenever a report is finished; after folders were removed, give this.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
    """
    from dwf.evaluation.report import write_index

    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder: give the one that holds zoos/, runs/, reports/")
    print(f"index: {write_index(root)}")
