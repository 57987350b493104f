"""Source of code, found without importing it, and the commit of the code that runs."""

import ast
import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

_SECONDS_FOR_GIT = 20


def source_digest(target: str) -> str | None:
    """Return the SHA-256 of the source of `package.module:factory`; nothing is imported.

    It covers the module, the packages that it is in and, where it is installed in neither Python's
    library nor a site's packages, the modules beside it that it imports, and theirs.

    Returns:
        None where no such module is found.
    """
    sources = _sources(target.partition(":")[0])
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest() if sources else None


def _sources(module: str) -> dict[str, bytes]:
    """Module -> source of a module and of those that it needs; empty where it is not found."""
    found: dict[str, bytes] = {}
    root = _root(module)
    todo = [module]
    while todo:
        name = todo.pop()
        parts = name.split(".")
        for own in (".".join(parts[: i + 1]) for i in range(len(parts))):
            if own in found:
                continue
            spec = _spec(own)
            if spec is None:
                break
            found[own] = _content(spec)
            if root is not None:
                todo += [other for other in _imports(spec, found[own]) if _is_beside(other, root)]
    return found if module in found else {}


def _spec(name: str) -> ModuleSpec | None:
    """Find a module as `importlib.util.find_spec` does, without importing the packages it is in."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return vars(loaded).get("__spec__")
    package = name.rpartition(".")[0]
    path = None
    if package:
        parent = _spec(package)
        path = parent and parent.submodule_search_locations
        if path is None:
            return None
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except KeyError:  # without `__init__.py`, and so is the package it is in: not imported yet
            return _namespace(name, path or [])
        if spec is not None:
            return spec
    return None


def _namespace(name: str, path: Iterable[str]) -> ModuleSpec:
    """Return the spec of a package without `__init__.py`."""
    spec = ModuleSpec(name, None, is_package=True)
    folders = [os.path.join(entry, name.rpartition(".")[2]) for entry in path]
    spec.submodule_search_locations = [folder for folder in folders if os.path.isdir(folder)]
    return spec


def _content(spec: ModuleSpec) -> bytes:
    """Source, or compiled code; of what is built into Python its version."""
    if spec.has_location and spec.origin and Path(spec.origin).is_file():
        return Path(spec.origin).read_bytes()
    return f"{spec.origin} {sys.version}".encode()


def _root(module: str) -> Path | None:
    """Folder that a module of the user's own lies in; None of what is installed."""
    spec = _spec(module.partition(".")[0])
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    is_package = spec.submodule_search_locations is not None
    root = Path(spec.origin).absolute().parents[1 if is_package else 0]
    installed = {Path(path).absolute() for path in sysconfig.get_paths().values()}
    return None if root in installed else root


def _is_beside(module: str, root: Path) -> bool:
    top = module.partition(".")[0]
    if not top:  # of a relative import that leads out of the package
        return False
    is_there = (root / top).is_dir() or (root / f"{top}.py").is_file()
    return is_there and top != __name__.partition(".")[0]  # which runs already


def _imports(spec: ModuleSpec, content: bytes) -> Iterator[str]:
    """Yield the modules that a source imports, and names that may be some."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # compiled, or it will not be imported
        return
    package = spec.name if spec.submodule_search_locations is not None else spec.parent
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                with contextlib.suppress(ImportError):
                    base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


# --- the checkout that dwf is installed from -----------------------------------------------------


def commit() -> str | None:
    """The commit of the code that runs, `-dirty` where it was changed; None outside a checkout."""
    return commit_facts()["commit"]


def commit_facts() -> dict[str, str | None]:
    """Return the `commit`; with `no_commit`, the reason, where a checkout's is not known."""
    if not _is_checkout():
        return {"commit": None}
    told, reason = _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return {"commit": told.strip()} if told.strip() else {"commit": None, "no_commit": reason}


def uncommitted() -> str:
    """Return how the checkout differs from its commit; nothing without one."""
    return _git("diff", "HEAD")[0] if _is_checkout() else ""


def _checkout() -> Path:
    return Path(__file__).parent.parent


def _is_checkout() -> bool:
    return (_checkout() / ".git").exists()


def _git(*arguments: str) -> tuple[str, str]:
    """Return git's answer on the checkout, and in words why there is none.

    The checkout may be another user's: its code runs already, so git may read it, too.
    """
    source = str(_checkout())
    words = ["git", "-c", f"safe.directory={source}", "-C", source, *arguments]
    try:
        ran = subprocess.run(
            words,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS_FOR_GIT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return (ran.stdout, "") if ran.returncode == 0 else ("", " ".join(ran.stderr.split()))
