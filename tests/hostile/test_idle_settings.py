"""Settings without effect are refused with the setting that would give them one.

Each is also made beside that setting, where it has its effect and is taken. Where a file says the
one and a flag the other, the flag overrules: the file's has its default, with one line to warn.
"""

import dataclasses

import pytest

from dwf.align.config import AlignConfig
from dwf.audit.config import AuditConfig, RowConfig
from dwf.audit.row import Audit
from dwf.backbones.config import TransformerConfig
from dwf.codecs.config import ConvAutoencoderConfig
from dwf.datasets.config import DataConfig
from dwf.densities.config import DiffusionConfig, FlowConfig, GaussianConfig, KdeConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.loading import load_settings
from dwf.networks.config import MLPConfig
from dwf.pipeline import PipelineConfig, commands
from dwf.predictors.experiment_config import ExperimentConfig, PartsConfig
from dwf.settings import build, building, parse
from dwf.sweeps.config import AxisConfig
from dwf.sweeps.space import listed_points, read_bases
from dwf.sweeps.trials import make_trial
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


def generator(**more):
    return GeneratorConfig("a", **more)


def sample(**more):
    return SampleConfig("a", **more)


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
    (LoopConfig, {"step_size": 10}, {"schedule": "step"}),
    (LoopConfig, {"sample_count": 4}, {"sample_every": 500}),
    (zoo, {"milestones": (2,)}, {"schedule": "multistep"}),
    (FlowConfig, {"time_std": 2.0}, {"time": "logit_normal"}),
    (FlowConfig, {"drop_condition": 0.3}, {"condition": "val_accuracy"}),
    (DiffusionConfig, {"beta_end": 0.05, "schedule": "cosine"}, {"schedule": "linear"}),
    (KdeConfig, {"sigma": 3.0}, {"mode": "gaussian"}),
    (KdeConfig, {"anchors": 3, "mode": "gaussian"}, {"mode": "token"}),
    (TransformerConfig, {"last_exchangeable": True}, {"positions": True}),
    (generator, {"likelihood": 4, "density": DiffusionConfig()}, {"density": GaussianConfig()}),
    (generator, {"networks_by": "random"}, {"networks": 4}),
    (sample, {"guidance": 2.0}, {"condition": 0.9}),
    (ConvAutoencoderConfig, {"log_variances": False}, {"buffers": True}),
    (align, {"activation_images": 64}, {"method": "activations"}),
    (align, {"signs": True, "method": "norm_sort"}, {"method": "transfusion"}),
    (align, {"start": "identity", "method": "norm_sort"}, {"method": "git_rebasin"}),
    (align, {"max_sweeps": 9, "method": "activations"}, {"method": "transfusion"}),
    (align, {"max_rounds": 3}, {"reference": "iterated_mean"}),
    (PartsConfig, {"val": 0.3}, {"by": "network"}),
    (PartsConfig, {"test": 0.3}, {"by": "draw"}),
    (PartsConfig, {"held_out": ("mnist",)}, {"by": "zoo"}),
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


# --- a file's setting that a flag overrules ------------------------------------------------------

ZOO = """
count: 4
network: {kind: mlp, widths: [64, 10]}
data: {kind: digits}
recipe: {epochs: 4, optimizer: sgd, momentum: 0.9, nesterov: true, schedule: step, step_size: 2}
"""
ADAM = "--recipe.optimizer=adam"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text(ZOO)
    return path


@pytest.fixture
def warnings(caplog):
    """The lines that are warned of; one is told once in a process, so others are forgotten."""
    building._warn_once.cache_clear()
    return lambda: [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]


def recipe_of(file, *flags):
    return parse(ZooConfig, "zoo", argv=["--config", str(file), *flags], command="zoo")


def test_a_flag_overrules_what_a_file_says_with_a_warning_that_names_both(file, warnings):
    parsed = recipe_of(file, ADAM)
    assert parsed.config.recipe == RecipeConfig(
        epochs=4, optimizer="adam", schedule="step", step_size=2
    )
    assert warnings() == [
        f"{file}: recipe.momentum = 0.9, recipe.nesterov = true: no effect, as optimizer = adam "
        "has none of it; the default is taken"
    ]
    assert "recipe.momentum" not in parsed.origins and parsed.origins["recipe.optimizer"] == "flag"


def test_several_flags_each_overrule_theirs(file, warnings):
    recipe = recipe_of(file, "--recipe.momentum=0", "--recipe.schedule=cosine").config.recipe
    assert recipe == RecipeConfig(epochs=4, optimizer="sgd", schedule="cosine")
    assert len(warnings()) == 2


@pytest.mark.parametrize(
    "flags", [[ADAM, "--recipe.momentum=0.5"], [ADAM, "--recipe.nesterov"], ["--count=5"]], ids=str
)
def test_what_flags_say_both_or_a_file_says_both_is_refused(file, flags, warnings):
    if flags == ["--count=5"]:
        file.write_text(ZOO.replace("sgd", "adam"))
    with pytest.raises(ConfigError, match=r"no effect, as optimizer = adam .*; or leave it out"):
        recipe_of(file, *flags)
    assert not warnings()


def test_python_sweeps_audits_and_pipelines_overrule_likewise(file, tmp_path, warnings):
    assert load_settings(file, "zoo", **{"recipe.optimizer": "adam"}).recipe.momentum == 0
    sweep = load_settings("sweep/iris_hidden_dims_x_modes")
    optimizers = {"zoo.recipe.optimizer": AxisConfig(grid=("adam", "sgd"))}
    sweep = dataclasses.replace(sweep, zoo=str(file), search="grid", space=optimizers)
    trials = [make_trial(read_bases(sweep), 0, point=point) for point in listed_points(sweep)]
    found = {one.zoo.recipe.optimizer: one.zoo.recipe.momentum for one in trials}
    assert found == {"adam": 0.0, "sgd": 0.9}
    row = RowConfig(generator="mnist_mlp")
    given = {"sample": "default", "evaluate": "default", "rows": {"row": row}}
    audit = AuditConfig((str(file),), set=("zoo.recipe.optimizer=adam",), **given)
    assert Audit.of(audit).files[str(file)]["recipe"] == {
        "epochs": 4, "optimizer": "adam", "schedule": "step", "step_size": 2,
    }  # fmt: skip
    pipeline = PipelineConfig(zoo=str(file), set=("zoo.recipe.optimizer=adam",))
    zoo_command = next(iter(commands(pipeline, "name")))
    assert recipe_of(file, *zoo_command.given).config.recipe.momentum == 0
    assert len(warnings()) == 3  # an audit and a pipeline say the same


def test_settings_of_an_entry_are_overruled_by_its_own_flags_alone(warnings):
    training = {"schedule": "cosine", "step_size": 5}
    rows = {"my.row": {"kind": "graph", "training": training}, "other": {"kind": "graph"}}
    data, flag = {"zoos": ["x"], "rows": rows}, "rows.my.row.training.schedule"
    made = build(ExperimentConfig, data, source="file", over=[flag])
    assert made.rows["my.row"].training.step_size is None and len(warnings()) == 1
    assert training["step_size"] == 5  # what was given is left as it was
    with pytest.raises(ConfigError, match="step_size = 5: no effect, as it is of schedule = step"):
        build(ExperimentConfig, data, source="file", over=["rows.other.training.schedule"])
