"""Remove what nothing needs any more from a root."""

from pathlib import Path

from dwf.folders.clean import Waste, find_caches, find_waste
from dwf.metrics import logger, print_table

_LINES = 40


def clean(*, root: Path = Path(), caches: bool = False, yes: bool = False) -> int:
    """List what can go from a root, with its bytes; with --yes remove it.

    Checkpoints of finished runs, work folders of finished zoos, partial files of attempts that were
    killed (codes and others), and damaged checkpoints that were set aside. Nothing else is touched:
    no zoo, generator, report, nor anything unfinished that can go on.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
        caches: smaller images in the data cache, too: those that can be made again from the whole
            ones beside them.
        yes: remove it; without this flag it is only listed.
    """
    found = find_waste(root) + (find_caches() if caches else [])
    if not found:
        print(f"{root}: nothing can go")
        return 0
    rows = [[_shown(one.num_bytes), one.reason, str(one.path)] for one in found]
    print_table(["bytes", "what", "where"], rows[:_LINES])
    if len(rows) > _LINES:
        print(f"  and {len(rows) - _LINES} more")
    if not yes:
        print(
            f"{len(found)} can go, {_shown(_sum(found))}; nothing was touched: --yes removes them"
        )
        return 0
    gone = [one for one in found if one.remove()]
    for one in found:
        if one not in gone:
            logger.warning("%s: somebody works there, it stays", one.path)
    print(f"{len(gone)} removed, {_shown(_sum(gone))} freed")
    return int(len(gone) < len(found))


def _sum(found: list[Waste]) -> int:
    return sum(one.num_bytes for one in found)


def _shown(num_bytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:,.1f} {unit}" if unit != "B" else f"{num_bytes} B"
        num_bytes /= 1024
    raise AssertionError(num_bytes)
