"""Set two runs, zoos or reports beside each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dwf.arguments import POSITIONAL, Argument
from dwf.folders.kinds import Place, find_alike
from dwf.metrics import print_table

if TYPE_CHECKING:
    from dwf.folders.compare import Compared

Name = Annotated[str, POSITIONAL]
_LONGEST = 40  # letters of a value


def compare_folders(
    a: Annotated[Name, Argument(metavar="A")],
    b: Annotated[Name, Argument(metavar="B")],
    *,
    root: Path = Path(),
    as_json: Annotated[bool, Argument(name="json")] = False,
) -> int:
    """Set two runs, zoos, reports or fine-tunings beside each other: settings, numbers, tests.

    Settings that differ come first. Where both sides' numbers are of the same networks, a paired
    test says whether they differ by more than luck; else an unpaired one, which is said.

    Args:
        a: folder, or name of a report, zoo or run under --root.
        b: folder or name of another, of the same kind.
        root: folder that holds zoos/, runs/ and reports/.
        as_json: print it as JSON.
    """
    from dwf.folders.compare import compare
    from dwf.folders.content import read_content

    places = find_alike((a, b), root)
    found = compare(*(read_content(place) for place in places))
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print(found, places)
    return 0


def _print(found: "Compared", places: list[Place]) -> None:
    for letter, place in zip("AB", places, strict=True):
        is_open = "" if place.is_finished else ", not finished"
        print(f"{letter}  {place.path} ({place.kind.noun}{is_open})")
    num = len(found.settings)
    print(f"\nsettings: {num} of {found.num_settings} differ")
    if num:
        rows = [[key, _short(a), _short(b)] for key, a, b in found.settings]
        print_table(["setting", "A", "B"], rows)
    print()
    if found.rows:
        from dwf.folders.compare import COLUMNS

        print_table(list(COLUMNS), [row.cells for row in found.rows])
    for line in (*found.alone, *found.notes):
        print(line)


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
