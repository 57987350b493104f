"""dwf where only the libraries are that its tests of the GPU need."""

import json
import zlib

import pytest

from tests.bare import lacking, run_bare

MODULES = """
import importlib, json, pkgutil, sys
import dwf

needed = {}
for found in pkgutil.walk_packages(dwf.__path__, "dwf."):
    if found.name == "dwf.__main__":
        continue
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        needed.setdefault(error.name.split(".")[0], []).append(found.name)
print(json.dumps(needed))
"""
CHECKSUM = """
import sys
import numpy as np
from dwf.zoo.checksums import crc32, row_checksums
rows = np.arange(12, dtype=np.float32).reshape(3, 4)
print("isal" in str(crc32), *row_checksums(rows))
"""


def test_what_is_taken_away_is_what_setup_declares_beyond_those_libraries():
    away = set(lacking())
    assert away >= {"tyro", "isal", "diffusers", "deepspeed", "ray", "submitit", "pandas"}
    assert not away & {"torch", "torchvision", "scipy", "h5py", "rich", "pytest", "numpy", "yaml"}


def test_checksums_are_the_same_without_isal(tmp_path):
    import numpy as np

    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    wanted = [str(zlib.crc32(row.tobytes())) for row in rows]
    ran = run_bare(tmp_path, "-c", CHECKSUM)
    assert ran.stdout.split() == ["False", *wanted], ran.stderr


@pytest.mark.slow
def test_modules_need_no_more_than_what_they_draw_search_or_attack_with(tmp_path):
    """No module needs the parser to be imported, nor DeepSpeed, submitit or diffusers."""
    ran = run_bare(tmp_path, "-c", MODULES)
    needed = json.loads(ran.stdout or "{}")
    assert ran.returncode == 0, ran.stderr
    assert set(needed) <= {"matplotlib", "lightgbm", "foolbox", "optuna"}, needed
    assert not [name for names in needed.values() for name in names if "commands" in name]
