"""The documentation holds together: links lead somewhere, files exist, indexes are complete.

That its commands and Python examples run is held by launch/test_commands.py.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.configs_index import INDEX, index
from tests.documentation import PAGES, RECIPES, ROOT, anchors, name_of, prose
from tests.page_contents import with_contents, without_contents

SOURCES = sorted((ROOT / "dwf").rglob("*.py"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What a page tells its reader to make.
OF_THE_READER = {"configs/cluster/mine.yaml"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert file.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor:
            assert anchor in anchors(file), f"{target}: {sorted(anchors(file))}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != RECIPES], ids=name_of)
def test_every_file_that_a_page_names_exists(page):
    folders = "benchmarks|configs|docs|dwf|launch|slurm|tests"
    named = re.findall(rf"(?<![\w/])(?:{folders})/[\w/.-]*\.\w+", page.read_text())
    for file in set(named) - OF_THE_READER:
        assert (ROOT / file).exists() or "NAME" in file, file


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_long_page_begins_with_links_to_its_sections(page):
    assert page.read_text() == with_contents(page), "give: python -m tests.page_contents --write"


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring of a module, its classes, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text())):
        statements = getattr(node, "body", None)
        if not isinstance(statements, list):
            continue
        before = (node, *statements)
        for earlier, found in zip(before, statements, strict=False):
            if isinstance(earlier, (*DOCUMENTED, ast.Assign, ast.AnnAssign)) and (
                isinstance(found, ast.Expr)
                and isinstance(found.value, ast.Constant)
                and isinstance(found.value.value, str)
            ):
                yield found.lineno, found.value.value.strip()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_docstrings_begin_as_sentences_do(path):
    """A field's docstring is what `--help` prints: it stands alone, and begins with a noun."""
    bad = {line: text for line, text in docstrings(path) if re.match(r"(Of|As|What)\b", text)}
    assert not bad, "rewrite them: subject, verb, object; a noun first"


def test_docstrings_of_fields_are_found_too(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('"""A."""\nX = 1\n"""B."""\nclass C:\n    """C."""\n    x: int\n    """D."""\n')
    assert dict(docstrings(path)) == {1: "A.", 3: "B.", 5: "C.", 7: "D."}


def test_the_readme_is_a_door():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 180
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", readme))
    missing = {name_of(page) for page in PAGES} - linked - {"README.md"}
    assert not missing, "the README's index of the documentation lacks pages"


def test_the_index_of_settings_files_is_that_of_their_headers():
    assert without_contents(INDEX.read_text()) == index(), (
        "give: python tests/configs_index.py --write"
    )
    linked = set(re.findall(r"\]\(([^)#\s]+\.yaml)\)", index()))
    files = {str(p.relative_to(ROOT / "configs")) for p in (ROOT / "configs").glob("*/**/*.yaml")}
    assert linked == files


def test_no_page_tells_of_the_machine_that_it_was_written_on():
    for page in PAGES:
        assert str(ROOT) not in page.read_text(), page
        assert str(Path.home()) + "/" not in page.read_text(), page
        assert page.read_text().isascii(), page
