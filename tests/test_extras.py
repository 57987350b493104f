"""Libraries of extras are asked for where they are used alone, and one that is missing is told.

The expected names are those of `setup.py`, read as text. A module that `sys.modules` holds as None
cannot be imported and is not found, as one that is not installed.
"""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from dwf import shipped
from dwf.cluster import ray_cluster, slurm
from dwf.commands import COMMANDS
from dwf.errors import ConfigError
from dwf.exporters.config import ExportConfig
from dwf.exporters.stage import export_networks
from dwf.extras import EXTRAS, pip_command
from dwf.trackers import track_with
from dwf.training.deepspeed_engine import import_deepspeed

ROOT = Path(__file__).parent.parent


def declared() -> dict[str, list[str]]:
    """The extras of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no EXTRAS")


def test_extras_are_those_that_setup_declares():
    told = declared()
    told.pop("dev")
    assert {extra: len(libraries) for extra, libraries in told.items()} == {
        extra: len(packages) for extra, packages in EXTRAS.items()
    }
    for extra, packages in EXTRAS.items():
        wanted = {re.split(r"[\[<>=-]", each)[0] for each in told[extra]}
        assert wanted == set(packages), extra


CALLED = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
CALLED |= {"fontTools": "fonttools"}
"""Import -> the library's name on PyPI, where they differ."""


def test_every_library_that_is_imported_is_declared():
    """Apart from types of DeepSpeed's and Foolbox's, none is there by another library's need."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (core,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "install_requires"
    ]
    extras = (library for libraries in declared().values() for library in libraries)
    wanted = [*ast.literal_eval(core.value), *extras]
    names = {re.split(r"[\[<>=]", each)[0].lower() for each in wanted}
    found = set()
    for path in (ROOT / "dwf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    others = found - set(sys.stdlib_module_names) - {"dwf"}
    # Brought by DeepSpeed, by Foolbox, and by the notebook in which it is asked for.
    brought = {"pydantic", "eagerpy", "IPython"}
    assert {CALLED.get(name, name) for name in others} - names == brought


def at_the_top(path: Path) -> set[str]:
    """Libraries that importing a module of dwf imports by itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_module_imports_a_library_of_an_extra_at_its_top():
    """But for one, which the sweep stage imports after it has asked for them."""
    extras = {package for packages in EXTRAS.values() for package in packages}
    found = {
        path.relative_to(ROOT / "dwf").as_posix()
        for path in (ROOT / "dwf").rglob("*.py")
        if at_the_top(path) & extras
    }
    assert found == {"sweeps/search.py"}


def sweep(_make_zoo, root):
    words = ["--config", "configs/sweep/iris_optuna_asha.yaml", "--root", str(root)]
    COMMANDS["sweep"].run(words)


def export(kind: str):
    def do(make_zoo, root):
        make_zoo(name="few")
        export_networks(ExportConfig("few", format=kind), root, name="e")

    return do


@pytest.mark.parametrize(
    ("package", "extra", "who", "use"),
    [
        ("ray", "cluster", "Ray", lambda make_zoo, root: ray_cluster.connect(1)),
        ("ray", "cluster", "Ray", sweep),
        ("submitit", "cluster", "Slurm", lambda make_zoo, root: slurm.ends([("7", 0)])),
        (
            "deepspeed",
            "deepspeed",
            "training.engine = 'deepspeed'",
            lambda make_zoo, root: import_deepspeed(torch.device("cpu")),
        ),
        ("onnxruntime", "export", "format = 'onnx'", export("onnx")),
        ("huggingface_hub", "export", "format = 'huggingface'", export("huggingface")),
        ("mlflow", "track", "track = 'mlflow'", lambda make_zoo, root: track_with("mlflow")),
    ],
)
def test_a_missing_library_is_told_in_one_sentence(
    package, extra, who, use, make_zoo, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as refused:
        use(make_zoo, tmp_path)
    said = str(refused.value)
    command = shlex.join(["pip", "install", "-e", f"{ROOT}[{extra}]"])
    assert said.startswith(who) and f"needs {package}, which dwf's extra [{extra}]" in said
    assert said.endswith(command) and "\n" not in said


def test_an_installed_dwf_names_the_libraries(tmp_path, monkeypatch):
    """By the metadata of the wheel: here one that is written as setuptools writes it."""
    info = tmp_path / "dwf-0.1.0.dist-info"
    info.mkdir()
    lines = ["Name: dwf", "Version: 0.1.0", 'Requires-Dist: ray[tune]<3,>=2.49; extra == "cluster"']
    lines += ["Requires-Dist: torch<3,>=2.9", 'Requires-Dist: mpi4py<5,>=4; extra == "mpi"']
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("dwf.extras.ROOT", tmp_path)
    assert shipped.ROOT == ROOT
    assert pip_command("cluster") == "pip install 'ray[tune]<3,>=2.49'"
