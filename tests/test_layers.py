"""The design's rules that a reader cannot be trusted to keep in mind."""

import ast
import importlib
import importlib.machinery
import sys
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
# Data flows down: a package imports only what stands before it, and the ground.
PACKAGES = (
    "datasets",
    "networks",
    "zoo",
    "importers",
    "align",
    "backbones",
    "training",
    "codecs",
    "densities",
    "generators",
    "evaluation",
    "measurements",
    "exporters",
    "transfer",
    "predictors",
    "pipeline",
    "summary",
    "sweeps",
    "audit",
    "loading",
    "folders",
    "cluster",
    "commands",
    "__main__",
)
GROUND = (
    "room",
    "trust",
    "files",
    "names",
    "data_paths",
    "source",
    "settings",
    "shipped",
    "yaml_files",
    "checked",
    "dataframes",
    "notebooks",
    "flags",
    "jobs",
    "trackers",
    "plain",
    "compute",
    "same_settings",
    "run_folder",
    "stages",
    "screen",
    "errors",
    "extras",
    "systems",
    "system_errors",
    "headers",
    "arguments",
    "metrics",
    "randomness",
    "devices",
    "messages",
    "mpi",
    "meeting",
    "ranks",
    "preemption",
    "distributed",
)
SOURCES = sorted((ROOT / "dwf").rglob("*.py"))
# A room is a package within a package; its door is what its `__init__.py` lists.
ROOMS = {".".join(p.parent.relative_to(ROOT).parts): p for p in ROOT.glob("dwf/*/*/__init__.py")}


def imported(path: Path) -> set[str]:
    """The parts of dwf that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "dwf":
            found |= {f"dwf.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.split(".")[1] for name in found if name.startswith("dwf.")}


def modules_at_top(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return {n.split(".")[0] for n in names} | {
        (n.module or "").split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_up_the_list_or_to_the_ground(path):
    part = path.relative_to(ROOT / "dwf").parts[0].removesuffix(".py")
    below = imported(path) - set(GROUND) - {"__version__"}
    if part in PACKAGES:
        allowed = set(PACKAGES[: PACKAGES.index(part) + 1])
        if part == "cluster":
            allowed = {"cluster"}  # knows no stage
        assert below <= allowed, f"{path} imports {below - allowed}"
    elif part == "__main__":
        assert below == {"commands"}
    elif part != "__init__":  # which imports on use: see the next test
        assert part in GROUND, f"{path}: no such place in the design"
        assert not below, f"the ground imports {below}"


def taken(path: Path) -> set[tuple[str, str]]:
    """Modules and names that a file imports from dwf, as (module, name), anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {(a.name, "") for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return plain | {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def door(room: str) -> set[str]:
    """Names that a room offers: its `__all__`."""
    for node in ast.parse(ROOMS[room].read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{room} has no __all__")


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_are_entered_by_their_door_only(room):
    inside = ROOMS[room].parent
    others = [*SOURCES, *(ROOT / "launch").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    used = set()
    for path in others:
        if inside in path.parents:
            continue
        for module, name in taken(path):
            assert not module.startswith(f"{room}."), f"{path} climbs into {module}"
            if module == room:
                assert name in door(room), f"{path} takes {name}, which {room} does not offer"
                used.add(name)
            assert f"{module}.{name}" != room, f"{path} takes the room {room} as a whole"
    for config in (ROOT / "dwf").glob("*/config.py"):
        tables = vars(importlib.import_module(f"dwf.{config.parent.name}.config"))
        for table in (t for n, t in tables.items() if n.isupper() and isinstance(t, dict)):
            used |= {str(v).split(":")[1] for v in table.values() if str(v).startswith(f"{room}:")}
    assert used == door(room), f"nobody takes {door(room) - used} from {room}"


def test_the_package_itself_imports_its_public_names_on_use_alone():
    """Of dwf it has imports for type checkers alone, one of each public name, none a module's."""
    import dwf

    tree = ast.parse((ROOT / "dwf" / "__init__.py").read_text())
    branches = [node for node in tree.body if isinstance(node, ast.If)]
    (checked,) = [node for node in branches if ast.unparse(node.test) == "TYPE_CHECKING"]
    lines = {node.lineno for node in ast.walk(checked) if isinstance(node, ast.ImportFrom)}
    of_dwf = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dwf"
    ]
    assert {node.lineno for node in of_dwf} == lines
    found = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in of_dwf
        for alias in node.names
    }
    assert found == dwf.PUBLIC
    modules = {path.relative_to(ROOT / "dwf").parts[0].removesuffix(".py") for path in SOURCES}
    assert not modules.intersection(found), "a module of that name would take its place"


@pytest.mark.parametrize("path", sorted((ROOT / "dwf").glob("*/config.py")), ids=str)
def test_settings_import_no_torch(path):
    assert "torch" not in modules_at_top(path)


def test_launch_names_shadow_no_module():
    for script in (ROOT / "launch").glob("*.py"):
        others = [p for p in sys.path if p and Path(p).resolve() != (ROOT / "launch").resolve()]
        spec = importlib.machinery.PathFinder.find_spec(script.stem, others)
        assert spec is None, f"launch/{script.name} shadows {spec.origin}"
        assert script.stem not in sys.stdlib_module_names


def test_launch_scripts_are_thin():
    for script in (ROOT / "launch").glob("*.py"):
        lines = [line for line in script.read_text().splitlines() if line.strip()]
        assert len(lines) <= 10, f"{script} is no thin script"
    for command in (ROOT / "dwf" / "commands").glob("*.py"):
        assert len(command.read_text().splitlines()) <= 120, f"{command} holds more than a command"


def test_files_and_functions_are_short(capsys):
    lengths = []
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= 500, f"{path} holds more than one idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)
                assert lengths[-1] <= 80, f"{path}: {node.name} is too long"
    with capsys.disabled():
        print(f" {len(lengths)} functions, median {median(lengths):g} lines, max {max(lengths)} ")


# Positions that others call by: of torch, Ray, and of the traced torch functions.
PROTOCOLS = ("forward", "on_trial_complete")


def long_lists(tree: ast.Module) -> list[str]:
    """Public functions that take more than two arguments by position."""
    found = []

    def look(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = [a.arg for a in (*child.args.posonlyargs, *child.args.args)]
                is_static = any(ast.unparse(d) == "staticmethod" for d in child.decorator_list)
                own = names[1:] if inside and not is_static else names
                is_public = not child.name.startswith("_") or child.name == "__init__"
                if is_public and len(own) > 2 and own[0] != "tracer":
                    found.append(child.name)
            elif isinstance(child, ast.ClassDef):
                look(child, True)
            else:
                look(child, inside)

    look(tree, False)
    return [name for name in found if name not in PROTOCOLS]


def test_arguments_from_the_third_on_are_named():
    """So that a reader can match them to parameters, and swapped ones are an error."""
    others = [*(ROOT / "launch").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    for path in [*SOURCES, *others]:
        found = long_lists(ast.parse(path.read_text()))
        assert not found, f"{path}: {found} take their third argument by position"


def signatures(tree: ast.Module) -> list[str]:
    """Annotations of each function, parameters and result, as one text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = (n for n in ast.walk(node.args) if isinstance(n, ast.arg))
            hints = [*(n.annotation for n in arguments), node.returns]
            found.append("; ".join(ast.unparse(hint) for hint in hints if hint))
    return found


def test_signatures_say_more_than_any(capsys):
    """A type that is known is named: `Any` is for what a registry finds, and the like."""
    paths = [*SOURCES, *(ROOT / "launch").glob("*.py")]
    every = [text for path in paths for text in signatures(ast.parse(path.read_text()))]
    share = sum("Any" in text for text in every) / len(every)
    with capsys.disabled():
        print(f" Any in {100 * share:.1f} % of {len(every)} signatures ")
    assert share <= 0.06


# A part is asked what it is or can by its own properties, so that a new one needs no other change.
PROBES = {
    "dwf/align/groups.py": "where a group of units says of its kind what others ask",
    "dwf/devices.py": "a private function of torch, which another version may lack",
}


def probes(tree: ast.Module) -> list[str]:
    """Questions whether a thing has a part, or what its `kind` is; that of NumPy's types is not."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            takes_default = len(node.args) == 3 and isinstance(node.args[1], ast.Constant)
            if node.func.id == "hasattr" or (node.func.id == "getattr" and takes_default):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Compare):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            if any(s.endswith(".kind") and not s.endswith("dtype.kind") for s in sides):
                found.append(ast.unparse(node))
    return found


def test_parts_are_asked_not_probed():
    apart = ("dwf/settings/", "dwf/align/trace/")  # which read any settings, any torch function
    found = {}
    for path in [*SOURCES, *(ROOT / "launch").glob("*.py")]:
        name = path.relative_to(ROOT).as_posix()
        there = probes(ast.parse(path.read_text()))
        if there and not name.startswith(apart):
            found[name] = there
    assert found.keys() == PROBES.keys(), f"{found}: a probe, or a line of PROBES without one"
    assert sum(map(len, found.values())) <= 10


def without_encoding(tree: ast.Module) -> list[int]:
    """Return the lines where a text file is read or written in whoever's locale.

    Ruff's PLW1514 sees this of paths whose type it can tell, which are few.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    methods = [call for call in calls if isinstance(call.func, ast.Attribute)]
    return [
        call.lineno
        for call in methods
        if (call.func.attr, len(call.args)) in (("read_text", 0), ("write_text", 1))
        and not {"encoding", None} & {word.arg for word in call.keywords}
    ]


def test_text_files_are_utf_8_whatever_the_locale():
    folders = [ROOT / name for name in ("dwf", "launch", "benchmarks", "docs/site")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    texts = {str(file): file.read_bytes() for file in files}
    either = {file: text for file, text in texts.items() if b"_text(" in text}
    found = {file: without_encoding(ast.parse(text)) for file, text in either.items()}
    assert not {file: lines for file, lines in found.items() if lines}
    text = ast.parse(
        "a.read_text(); a.write_text('b'); write_text(a, 'b'); a.write_text('', 'utf-8')"
    )
    assert without_encoding(text) == [1, 1]


def test_registries_name_things_that_exist():
    from dwf.settings import find

    for path in (ROOT / "dwf").glob("*/config.py"):
        module = importlib.import_module(f"dwf.{path.parent.name}.config")
        for name, table in vars(module).items():
            if name.isupper() and name[0] != "_" and isinstance(table, dict):
                for kind in table:
                    assert find(table, kind) is not None
