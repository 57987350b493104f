"""The stage on trained networks of the digits: known accuracies, whole counts, bitwise resumes."""

import json

import numpy as np
import pytest

from dwf.datasets.config import DataConfig
from dwf.transfer.config import FinetuneConfig
from dwf.transfer.stage import finetune, plan
from dwf.zoo.config import RecipeConfig
from dwf.zoo.store import Zoo
from tests.transfer.conftest import DATA

RECIPE = RecipeConfig(epochs=2, batch_size=64, learning_rate=0.01)


def config(**changes) -> FinetuneConfig:
    given = {"zoo": "z-aligned", "data": DATA, "samples": ("s",), "recipe": RECIPE}
    given |= {"count": 6, "epochs": (0, 1, 2), "members": 3}
    return FinetuneConfig(**(given | changes))


def test_smoke(root):
    print(plan(config(), root, name="t"))
    made = finetune(config(), root, name="t")
    print(made.markdown)
    print(list((root / "finetunes" / "t").rglob("*")))
    assert 0
