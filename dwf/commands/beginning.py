"""How the commands of stages begin: the plan is shown, then nothing is touched, or work begins."""

from collections.abc import Callable
from pathlib import Path

from dwf import preemption
from dwf.commands.overwrite import make_room
from dwf.settings import Parsed


def begins(
    parsed: Parsed,
    planned: str,
    *,
    folders: tuple[Path, ...],
    cost: Callable[[], str] | None = None,
) -> bool:
    """Print the plan; in a dry run the settings, too, else get ready to work.

    Args:
        parsed: the command line.
        planned: the plan in words.
        folders: all that the command is about to write, see `make_room`.
        cost: says in a dry run what the work costs; measuring that may take a moment.

    Returns:
        Whether work begins: not in a dry run.

    Raises:
        RunConflict: --overwrite, and somebody works in a folder.
    """
    print(planned)
    if parsed.launch.dry_run:
        print(*([cost()] if cost else []), parsed.describe(), sep="\n")
        return False
    make_room(parsed.launch, *folders)
    preemption.watch()
    return True
