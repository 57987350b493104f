"""Build the documentation site into docs/_build/html: `make docs`.

python docs/site/build.py [--out FOLDER]

Warnings are errors: a link that leads nowhere, a docstring that cannot be read, a page in no
section.
"""

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from pages import write  # noqa: E402  beside this file
from sphinx.cmd.build import build_main  # noqa: E402


def main() -> int:
    """Write the pages, run Sphinx, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=HERE.parent / "_build", help="folder for source/ and html/"
    )
    out = parser.parse_args().out
    write(out / "source")
    shutil.rmtree(out / "html", ignore_errors=True)  # pages that are no more
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env"]
    places = ["-c", str(HERE), str(out / "source"), str(out / "html")]
    status = build_main([*options, *places])
    if status == 0:
        print(out / "html" / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
