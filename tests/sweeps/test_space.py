"""What is tried: points, strict checks before anything runs, and what trials share."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from dwf.errors import ConfigError
from dwf.settings import parse
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.space import extreme_points, listed_points, read_bases
from dwf.sweeps.trials import (
    codec_settings,
    count_stages,
    describe_plan,
    list_trials,
    name_of,
)
from tests.sweeps.conftest import WIDTH, write_sweep

ROOT = Path(__file__).parents[2]
MODES = {"align": {"grid": [True, False]}}


def plan(config):
    return list_trials(config, read_bases(config))


def test_a_grid_tries_every_value_with_every_other(make):
    config = make({WIDTH: {"grid": [8, 16, 32]}, **MODES})
    assert [tuple(point.values()) for point in listed_points(config)] == [
        (8, True), (8, False), (16, True), (16, False), (32, True), (32, False)
    ]  # fmt: skip


def test_trials_share_what_they_agree_in(make):
    trials = plan(make({WIDTH: {"grid": [8, 16, 32]}, **MODES}))
    counts = {"zoo": 1, "aligned": 1, "codec": 2, "generator": 6, "samples": 6}
    assert count_stages(trials) == counts
    assert {trial.frame for trial in trials if trial.align is None} == {trials[0].zoo_name}
    seeds = plan(make({"zoo.seed": {"grid": [0, 1]}, "sample.seed": {"grid": [0, 1]}}))
    counts = {"zoo": 2, "aligned": 2, "codec": 2, "generator": 2, "samples": 4}
    assert count_stages(seeds) == counts


def test_names_follow_from_settings_alone(make):
    (one, _), (_, other) = (plan(make({WIDTH: {"grid": widths}})) for widths in ([16, 32], [8, 16]))
    assert one.names == other.names
    codecs = {"generator.codec.whiten": {"grid": [True, False]}}
    first, second = plan(make(codecs))
    assert first.frame == second.frame and first.codec_name != second.codec_name


def test_a_stage_takes_whole_files(make, way, tmp_path):
    gaussian = {"codec": {"kind": "flat"}, "density": {"kind": "gaussian"}}
    (tmp_path / "gaussian.yaml").write_text(yaml.safe_dump(gaussian))
    files = [way["generator"], str(tmp_path / "gaussian.yaml")]
    flow, other = plan(make({"generator": {"grid": files}}))
    assert (flow.generator.density.kind, other.generator.density.kind) == ("flow", "gaussian")


def test_random_draws_lie_in_their_ranges_and_are_crossed_with_grids(make):
    rate = "generator.density.training.learning_rate"
    space = {
        rate: {"log_uniform": ["1e-5", "1e-1"]},
        "generator.density.training.ema": {"uniform": [0.5, 0.9]},
        WIDTH: {"integer": [8, 10]},
        **MODES,
    }
    config = make(space, search="random", trials=200)
    points = listed_points(config)
    assert len(points) == 400 and points == listed_points(config)
    assert points[0] | {"align": False} == points[1]
    assert {point[WIDTH] for point in points} == {8, 9, 10}
    rates = [point[rate] for point in points]
    assert all(1e-5 <= value <= 1e-1 for value in rates)
    below = sum(value < 1e-3 for value in rates) / len(rates)  # half of the decades
    assert 0.4 < below < 0.6
    assert all(0.5 <= point["generator.density.training.ema"] <= 0.9 for point in points)
    assert points[:100] == listed_points(make(space, search="random", trials=50))


def test_a_number_is_one_value_however_it_is_written(make):
    rate = "generator.density.training.learning_rate"
    begun = {0: {rate: "1e-3"}, 1: {rate: 1}}  # YAML reads 1e-3 as a text
    config = make({rate: {"grid": [0.5, 0.001, 1.0]}})
    trials = list_trials(config, read_bases(config), begun=begun)
    assert {one.number: one.point[rate] for one in trials} == {0: 0.001, 1: 1.0, 2: 0.5}


def test_equal_draws_are_one_trial(make):
    space = {WIDTH: {"choice": [8, 12]}, "zoo.seed": {"choice": [0, 1]}}
    config = make(space, search="random", trials=30)
    trials = plan(config)
    assert sorted(tuple(one.point.values()) for one in trials) == [(8, 0), (8, 1), (12, 0), (12, 1)]
    assert [one.number for one in trials] == [0, 1, 2, 3]
    first = plan(make(space, search="random", trials=2))
    assert trials[: len(first)] == first


def test_the_ends_of_what_optuna_may_propose_are_checked(make):
    space = {WIDTH: {"integer": [8, 64]}, "generator.codec.whiten": {"choice": [True, False]}}
    config = make(space, search="optuna")
    values = [tuple(point.values()) for point in extreme_points(config)]
    assert values == [(8, True), (64, True), (8, True), (8, False)]
    with pytest.raises(ConfigError, match=r"dropout = 1.5: allowed is at least 0, at most 0.99"):
        dropout = {"generator.density.backbone.dropout": {"uniform": [0.0, 1.5]}}
        plan(make(dropout, search="optuna"))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"zooo.seed": {"grid": [1]}}, r"did you mean 'zoo.seed'"),
        ({"generator.density.backbone.widht": {"grid": [1]}}, r"did you mean 'width'"),
        ({WIDTH: {"grid": [16, 0]}}, r"density.backbone.width = 0: allowed is at least 1"),
        ({WIDTH: {"grid": [16, "wide"]}}, r"expected int, found str"),
        ({WIDTH: {"grid": [16, 16]}}, r"values that differ"),
        ({WIDTH: {"grid": [8], "choice": [8]}}, r"grid, choice: give one of"),
        ({WIDTH: {"uniform": [1, 2]}}, r"search is grid: list its values as `grid`"),
        ({"generator.zoo": {"grid": ["other"]}}, r"the sweep fills this in"),
        ({"evaluate.split": {"grid": ["test"]}}, r"the sweep fills this in"),
        ({"zoo.data.path": {"grid": ["a.npz"]}}, r"hold no path: give settings files"),
        ({"zoo": {"grid": [True]}}, r"true and false are for align"),
        ({"generator": {"grid": ["nowhere.yaml"]}}, r"nowhere.yaml: no such file"),
        ({}, r"space is empty"),
    ],
)
def test_a_wrong_space_is_refused_before_anything_runs(make, space, said):
    with pytest.raises(ConfigError, match=said):
        plan(make(space))


def test_asha_needs_something_to_watch(make, way, tmp_path):
    with pytest.raises(ConfigError, match=r"asha.grace = 1000: no generator trains longer than 60"):
        plan(make({WIDTH: {"grid": [8]}}, scheduler="asha"))
    (tmp_path / "gaussian.yaml").write_text("density: {kind: gaussian}")
    files = {"generator": {"grid": [str(tmp_path / "gaussian.yaml")]}}
    with pytest.raises(ConfigError, match=r"density gaussian does not train"):
        plan(make(files, scheduler="asha"))


def test_trials_that_are_over_keep_their_numbers_in_a_wider_grid(make):
    narrow = make({WIDTH: {"grid": [8, 32]}, **MODES})
    over = dict(enumerate(listed_points(narrow)))
    del over[2]  # 32, aligned
    wide = make({**MODES, WIDTH: {"grid": [8, 16, 32]}})
    trials = list_trials(wide, read_bases(wide), begun=over)
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.number: trial.point for trial in trials}.items() >= over.items()
    points = [tuple(sorted(trial.point.items())) for trial in trials]
    assert sorted(points) == sorted(tuple(sorted(point.items())) for point in listed_points(wide))
    less = make({WIDTH: {"grid": [8, 32]}, **MODES}, leave_out=["align=false"])
    trials = list_trials(less, read_bases(less), begun=over)
    assert [(trial.number, trial.point[WIDTH]) for trial in trials] == [(0, 8), (2, 32)]


def test_a_plan_lists_trials_or_the_space(make, tmp_path):
    config = make({WIDTH: {"grid": [8, 16]}, **MODES})
    said = describe_plan(config, read_bases(config), folder=tmp_path)
    assert "4 trials" in said and "1 x zoo" in said and f"trial 3: {WIDTH} = 16, align = F" in said
    over = dict(enumerate(listed_points(config)))
    said = describe_plan(config, read_bases(config), folder=tmp_path, begun=over, over=over)
    assert "4 of them are over and kept, none is left" in said
    del over[2]
    said = describe_plan(config, read_bases(config), folder=tmp_path, begun=over, over=over)
    assert "3 of them are over" in said and "1 to go" in said
    assert "1 x generator, 1 x samples\n" in said and "no zoo; 60 training steps" in said
    assert f"trial 2: {WIDTH} = 16" in said and "trial 3" not in said
    config = make({WIDTH: {"integer": [8, 16]}}, search="optuna", trials=7)
    said = describe_plan(config, read_bases(config), folder=tmp_path)
    assert "7 trials by optuna" in said and f"{WIDTH}: integer 8, 16" in said


def test_a_dry_run_touches_nothing_and_help_imports_neither_torch_nor_ray(make, tmp_path):
    file = write_sweep(make({WIDTH: {"grid": [8, 16]}}), tmp_path / "sweep.yaml")
    root = tmp_path / "root"
    for flags, shown in ((["--dry-run"], "trial 1"), (["--help"], "--metric")):
        words = ["-X", "importtime", "launch/sweep.py", "--config", str(file), "--root", str(root)]
        ran = subprocess.run(
            [sys.executable, *words, *flags], cwd=ROOT, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert shown in ran.stdout and not root.exists()
        imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
        assert not imported & {"torch", "ray", "optuna", "matplotlib"}


def test_what_is_left_out_is_not_tried(make):
    space = {WIDTH: {"grid": [8, 16, 32]}, **MODES}
    config = make(space, leave_out=[f"{WIDTH}=32", "align=false"])
    assert listed_points(config) == [{WIDTH: 8, "align": True}, {WIDTH: 16, "align": True}]
    assert list(config.space[WIDTH].values) == [8, 16, 32]


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ([f"{WIDTH}=64"], r"width=64': generator.density.backbone.width has 8, 16"),
        ([f"{WIDTH}=8", f"{WIDTH}=16"], r"nothing is left of generator.density.backbone.width"),
        (["width=8"], r"'width=8' is of none of the lists of space: generator.density.backbone.w"),
    ],
)
def test_leaving_out_what_is_not_there_is_refused(make, left_out, said):
    with pytest.raises(ConfigError, match=said):
        make({WIDTH: {"grid": [8, 16]}}, leave_out=left_out)


def test_a_wrong_flag_is_a_users_mistake(make, tmp_path):
    file = write_sweep(make({WIDTH: {"grid": [8, 16]}}), tmp_path / "sweep.yaml")
    words = ["--config", str(file), "--leave-out", f"{WIDTH}=8"]
    assert list(parse(SweepConfig, "none", argv=words).config.axes[WIDTH].values) == [16]
    with pytest.raises(
        ConfigError, match=r"^command line: SweepConfig: leave_out: .*width has 8, 16"
    ):
        parse(SweepConfig, "none", argv=[*words, f"{WIDTH}=9"])


def test_a_setting_that_is_new_and_at_its_default_changes_no_name():
    @dataclass(frozen=True)
    class Part:
        width: int = 8
        kind: Literal["part"] = "part"

    @dataclass(frozen=True)
    class Old:
        zoo: str
        part: Part = field(default_factory=lambda: Part(16))

    @dataclass(frozen=True)
    class New(Old):
        scale: str = "kept"
        parts: tuple[int, ...] = ()

    assert name_of("a", Old("z")) == name_of("a", New("z"))
    others = [Old("y"), Old("z", Part()), Old("z", Part(4)), New("z", scale="log")]
    names = {name_of("a", one) for one in (Old("z"), *others)}
    assert len(names) == 5


def test_the_networks_learnt_from_are_of_the_codecs_name_and_only_where_they_are_given(make):
    space = {
        "generator.networks": {"grid": [8, None]},
        "generator.seed": {"grid": [0, 1]},
        "align": {"grid": [False]},
    }
    first, _, every, _ = plan(make(space))
    names = {trial.codec_name for trial in plan(make(space))}
    assert first.generator.networks == 8 and every.generator.networks is None
    assert len(names) == 2, "the codec draws nothing"
    assert set(codec_settings(every.generator)) == {"zoo", "codec", "epochs", "seed"}
    random = plan(
        make(
            {k: v for k, v in space.items() if k != "generator.networks"}
            | {
                "generator.networks": {"grid": [8]},
                "generator.networks_by": {"grid": ["random"]},
            }
        )
    )
    assert len({trial.codec_name for trial in random} | names) == 4
