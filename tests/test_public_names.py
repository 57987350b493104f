"""`import dwf` is cheap and gives the public names: held against fresh Python processes."""

import inspect
import json
import subprocess
import sys
import types

import pytest

import dwf

METHODS = (types.FunctionType, classmethod, staticmethod)
HEAVY = ("torch", "numpy", "h5py", "yaml", "tyro")


def in_a_new_process(program: str) -> object:
    ran = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def test_importing_dwf_imports_nothing_else():
    """Modules that are loaded afterwards, of dwf's own and of what it is built on."""
    found = in_a_new_process("import dwf\nprint(json.dumps(sorted(sys.modules)))")
    assert [name for name in found if name.split(".")[0] == "dwf"] == ["dwf"]
    assert not set(HEAVY).intersection(found)


def test_settings_are_read_without_torch():
    program = (
        "import dwf\nconfig = dwf.load_settings('zoo/iris_mlp', count=12)\n"
        "print(json.dumps([config.count, 'torch' in sys.modules]))"
    )
    assert in_a_new_process(program) == [12, False]


@pytest.mark.parametrize("name", dwf.PUBLIC)
def test_each_public_name_is_what_its_module_or_room_defines(name):
    module, _, attribute = dwf.PUBLIC[name].partition(":")
    value = getattr(dwf, name)
    assert f"{value.__module__}.".startswith(f"{module}.") and value.__name__ == attribute
    assert vars(dwf)[name] is value, "the second use does not look it up again"


def test_the_names_and_no_others_are_listed():
    """By TAB too, also after a stage has imported modules of dwf."""
    program = "import dwf\nbefore = dir(dwf)\ndwf.Zoo\nprint(json.dumps([before, dir(dwf)]))"
    before, after = in_a_new_process(program)
    assert before == after
    assert [name for name in before if not name.startswith("__")] == sorted(dwf.PUBLIC)
    assert sorted(dwf.PUBLIC) == dwf.__all__


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"no attribute 'Zo'; it has .*Zoo"):
        dwf.Zo  # noqa: B018


def test_every_public_call_takes_a_path_as_text():
    """Stages are called with text by the examples of the documentation."""
    found = [getattr(dwf, name) for name in dwf.PUBLIC]
    for owner in filter(inspect.isclass, list(found)):
        members = [value for name, value in vars(owner).items() if not name.startswith("_")]
        found += [getattr(owner, m.__name__) for m in members if isinstance(m, METHODS)]
    for call in filter(inspect.isroutine, found):
        for name, hint in inspect.get_annotations(call).items():
            if name != "return" and "Path" in str(hint):
                assert "str" in str(hint), f"{call.__qualname__}: {name} takes no text"
