"""Settings without effect are refused with the setting that would give them one.

Each is also made beside that setting, where it has its effect and is taken.
"""

import pytest

from dwf.align.config import AlignConfig
from dwf.codecs.config import ConvAutoencoderConfig
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.predictors.experiment_config import PartsConfig
from dwf.training.config import LoopConfig
from dwf.transfer.config import FinetuneConfig
from dwf.zoo.config import (
    AugmentConfig,
    PruneConfig,
    RangeConfig,
    RecipeConfig,
    VaryConfig,
    ZooConfig,
)


def zoo(vary=None, **recipe):
    recipe = RecipeConfig(**recipe)
    return ZooConfig(
        MLPConfig((64, 10)), DataConfig("digits"), 4, recipe=recipe, vary=vary or VaryConfig()
    )


def align(**more):
    return AlignConfig("a", **more)


def finetune(**more):
    return FinetuneConfig("a", DataConfig("digits"), **more)


IDLE = [
    (zoo, {"momentum": 0.9}, {"optimizer": "sgd"}),
    (zoo, {"nesterov": True}, {"optimizer": "sgd", "momentum": 0.9}),
    (zoo, {"nesterov": True, "optimizer": "sgd"}, {"momentum": 0.9}),
    (zoo, {"vary": VaryConfig(momentum=(0.5, 0.9))}, {"optimizer": "sgd"}),
    (zoo, {"momentum": 0.9}, {"vary": VaryConfig(optimizer=("adam", "sgd"))}),
    (zoo, {"gamma": 0.5}, {"schedule": "step"}),
    (zoo, {"gamma": 0.5}, {"schedule": "multistep", "milestones": (2,)}),
    (zoo, {"step_size": 3}, {"schedule": "step"}),
    (zoo, {"schedule_length": 3}, {"schedule": "cosine"}),
    (zoo, {"warm_up": 2, "schedule": "one_cycle"}, {"schedule": "cosine"}),
    (zoo, {"augment": AugmentConfig(jitter_probability=0.5)}, {"vary": VaryConfig(jitter=(0.1,))}),
    (PruneConfig, {"every": 2}, {"rounds": 2}),
    (LoopConfig, {"matrix_rate": 0.01}, {"optimizer": "muon"}),
    (LoopConfig, {"minimum_rate": 1e-6, "schedule": "constant"}, {"schedule": "cosine"}),
    (LoopConfig, {"gamma": 0.5}, {"schedule": "step", "step_size": 10}),
    (ConvAutoencoderConfig, {"log_variances": False}, {"buffers": True}),
    (align, {"activation_images": 64}, {"method": "activations"}),
    (PartsConfig, {"val": 0.3}, {"by": "network"}),
    (PartsConfig, {"test": 0.3}, {"by": "draw"}),
    (finetune, {"recipe": RecipeConfig(epochs=25, momentum=0.9)}, None),
    (finetune, {"noise": (0.2,), "arms": ("random",)}, {"arms": ("random", "noise")}),
    (finetune, {"averages": (8,), "arms": ("random",)}, {"arms": ("average",)}),
]


def _word(one: object) -> str:
    """A part of a test's name: the same in every process, so no address."""
    return one.__name__ if callable(one) else str(one)[:60]


@pytest.mark.parametrize(("make", "idle", "cure"), IDLE, ids=_word)
def test_a_setting_that_has_no_effect_is_refused(make, idle, cure):
    with pytest.raises((ValueError, ConfigError), match=r"no effect, as .*; or leave it out"):
        make(**idle)
    if cure is not None:
        make(**idle | cure)


def test_ranges_give_momentum_its_effect():
    vary = VaryConfig(momentum=RangeConfig(0.1, 0.9))
    assert zoo(optimizer="sgd", nesterov=True, vary=vary).vary is vary
