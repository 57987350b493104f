"""The pages of the site: the repository's Markdown files in order, and the reference.

Pages keep their places, so links between them stay as they are; one whose words are a page's file
name has its title instead. A link to another file of the repository becomes a download, and a link
to a folder plain text.
"""

import importlib
import inspect
import re
import shutil
from pathlib import Path

import dwf

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "Start": ("docs/install.md", "docs/start.md", "docs/command_line.md", "docs/faq.md"),
    "Concepts": ("docs/concepts.md",),
    "The way": (
        "docs/data.md",
        "docs/zoos.md",
        "docs/alignment.md",
        "docs/codecs.md",
        "docs/generators.md",
        "docs/evaluation.md",
        "docs/import_export.md",
    ),
    "Tutorials": ("docs/tutorials/*.md",),
    "Methods": (
        "docs/published.md",
        "docs/predictors.md",
        "docs/transfer.md",
        "docs/sweeps.md",
        "docs/audit.md",
    ),
    "Cluster": ("docs/cluster.md", "docs/security.md"),
    "Results": ("docs/results.md", "benchmarks/README.md", "benchmarks/results/generalisation.md"),
    "Reference": ("configs/README.md", "docs/folders.md", "docs/formats.md"),
    "Extending": ("docs/architecture.md", "docs/extending.md", "CONTRIBUTING.md", "CHANGELOG.md"),
}
"""Caption -> its pages in order, as patterns; one that matches nothing is left out."""
REFERENCE = "Reference"
"""The section that ends with the pages written from docstrings."""
FRONT = "README.md"
"""The page that the site opens with."""
# Code is left alone; a link may have code in its words.
_CODE_OR_LINK = re.compile(
    r"^```.*?^```|(?P<link>\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\))|`[^`\n]+`",
    re.DOTALL | re.MULTILINE,
)


def sections() -> dict[str, list[Path]]:
    """Return caption -> pages of the repository in order, relative to its root.

    Raises:
        SystemExit: a page of docs/ stands in no section.
    """
    found = {
        caption: [
            page.relative_to(ROOT) for pattern in patterns for page in sorted(ROOT.glob(pattern))
        ]
        for caption, patterns in SECTIONS.items()
    }
    pages = {page.relative_to(ROOT) for page in (ROOT / "docs").glob("*.md")}
    missing = pages.difference(*found.values())
    if missing:
        names = ", ".join(sorted(map(str, missing)))
        raise SystemExit(f"name {names} in SECTIONS of {Path(__file__).relative_to(ROOT)}")
    return {caption: pages for caption, pages in found.items() if pages}


def write(source: Path) -> None:
    """Write everything that Sphinx reads into a new folder.

    Args:
        source: the folder; what is in it is removed.
    """
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    order = sections()
    pages = {Path(FRONT), *(page for found in order.values() for page in found)}
    for page in pages - {Path(FRONT)}:
        _put(source / page, _with_links(page, pages=pages, source=source))
    reference = _write_reference(source / "reference")
    trees = [
        _tree(
            caption,
            [_in_menu(page) for page in found] + (reference if caption == REFERENCE else []),
        )
        for caption, found in order.items()
    ]
    front = _with_links(Path(FRONT), pages=pages, source=source)
    _put(source / "index.md", "\n".join([front, *trees]))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _tree(caption: str, documents: list[str]) -> str:
    lines = "\n".join(documents)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def _with_links(page: Path, *, pages: set[Path], source: Path) -> str:
    """Return the text of a page whose links lead to the site's own files.

    Args:
        page: relative to the repository's root.
        pages: those of the site.
        source: where files that are no pages are copied to.
    """

    def changed(match: re.Match[str]) -> str:
        target = match["target"]
        if not match["link"] or target.startswith(("http:", "https:", "#")):
            return match[0]
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent.joinpath(path).resolve()
        place = file.relative_to(ROOT)
        words = match["words"]
        if file.is_dir():
            return words
        if place in pages and Path(words).name == file.name:
            words = title_of(file)
        if place == Path(FRONT):
            up = "../" * (len(page.parts) - 1)
            return f"[{words}]({up}index.md{anchor and '#' + anchor})"
        if place not in pages and file.exists():
            (source / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, source / place)
        return f"[{words}]({target})"

    return _CODE_OR_LINK.sub(changed, (ROOT / page).read_text(encoding="utf-8"))


def title_of(page: Path) -> str:
    """Return the first heading of a page."""
    return re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)[1]


def _in_menu(page: Path) -> str:
    """Return a page as a menu names it, whose caption says already that it is a tutorial."""
    document, title = str(page.with_suffix("")), title_of(ROOT / page)
    _, is_tutorial, short = title.partition("Tutorial: ")
    return f"{short[0].upper()}{short[1:]} <{document}>" if is_tutorial else document


def _write_reference(folder: Path) -> list[str]:
    """Write the pages that autodoc fills; return them as Sphinx names them, in order."""
    entries = []
    for name in dwf.PUBLIC:  # a class has a capital letter
        options = "   :members:\n" if name[0].isupper() else ""
        kind = "class" if name[0].isupper() else "function"
        entries.append(f".. auto{kind}:: dwf.{name}\n{options}")
    words = "Stages, and what they read and write. ``import dwf`` gives all names of this page.\n"
    listed = _on_this_page([(name, f"dwf.{name}") for name in dwf.PUBLIC])
    _put(folder / "python.rst", "\n".join([_title("Python"), words, listed, *entries]))
    modules = settings_modules()
    names = "\n".join(f"   settings/{module}" for module in modules)
    words = (
        "Each class is a block of a settings file, and each field a key of it and a flag of the\n"
        "commands that read it.\n"
    )
    tree = f".. toctree::\n   :maxdepth: 1\n\n{names}\n"
    _put(folder / "settings.rst", "\n".join([_title("Settings"), words, tree]))
    for module in modules:
        options = "   :members:\n   :undoc-members:\n   :show-inheritance:\n"
        entry = f".. automodule:: {module}\n{options}"
        listed = _on_this_page([(name, f"{module}.{name}") for name in _classes(module)])
        _put(folder / "settings" / f"{module}.rst", f"{_title(module)}\n{listed}\n{entry}")
    return ["reference/python", "reference/settings"]


def _on_this_page(names: list[tuple[str, str]]) -> str:
    """Return links to the parts of a page that autodoc fills: words, and a name in full."""
    if len(names) < 2:
        return ""
    links = ", ".join(f":py:obj:`{words} <{name}>`" for words, name in names)
    return f"On this page: {links}.\n"


def _classes(module: str) -> list[str]:
    """Return the classes that a module defines, in its order."""
    found = vars(importlib.import_module(module)).items()
    return [
        name
        for name, one in found
        if inspect.isclass(one) and one.__module__ == module and not name.startswith("_")
    ]


def settings_modules() -> list[str]:
    """Return the modules whose classes are settings, by name, in alphabetical order."""
    files = {*ROOT.glob("dwf/**/config.py"), *ROOT.glob("dwf/**/*_config.py")}
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)


def _title(words: str) -> str:
    return f"{words}\n{'=' * len(words)}\n"
