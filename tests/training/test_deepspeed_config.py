"""DeepSpeed's files: what the loop fills in, what it refuses, and the shipped ones."""

import dataclasses
import json
from pathlib import Path

import pytest

from dwf.errors import ConfigError
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.deepspeed_config import read_settings

SHIPPED = sorted((Path(__file__).parents[2] / "configs/deepspeed").glob("*.json"))
CONFIG = LoopConfig(engine="deepspeed", batch_size=24, accumulate=3, clip_norm=0.5)
BF16 = LoopComputeConfig(precision="bf16")


def written(path, **data):
    path = path / "zero.json"
    path.write_text(json.dumps(data))
    return dataclasses.replace(CONFIG, deepspeed=str(path))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_what_their_names_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they are found from other folders too
    config = dataclasses.replace(CONFIG, deepspeed=f"configs/deepspeed/{path.name}")
    settings = read_settings(config)
    stage, _, offload = path.stem.removeprefix("zero").partition("_")
    assert settings.stage == int(stage) and (settings.offload != "none") == bool(offload)
    assert not settings.bf16
    assert read_settings(dataclasses.replace(config, compute=BF16)).bf16


def test_what_the_loop_owns_is_filled_in(tmp_path):
    config = written(tmp_path, zero_optimization={"stage": 1}, train_batch_size="auto")
    filled = read_settings(config).filled(config, 4, universal=False)
    assert filled["train_batch_size"] == 24
    assert filled["train_micro_batch_size_per_gpu"] == 2
    assert filled["gradient_accumulation_steps"] == 3 and filled["gradient_clipping"] == 0.5
    bf16 = dataclasses.replace(config, compute=BF16)  # the file says nothing of bf16
    assert read_settings(bf16).filled(bf16, 4, universal=False)["torch_autocast"]["enabled"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train_batch_size": 8}, r"train_batch_size = 8: the training loop decides.*batch_size"),
        ({"optimizer": {"type": "Adam"}}, "optimizer = .*learning_rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler = .*training.schedule"),
        ({"gradient_clipping": 1.0}, "gradient_clipping = 1.0: .*training.clip_norm"),
        ({"zero_optimization": {"stage": 0}}, "stage = 0: allowed is 1, 2 or 3.*ddp"),
        ({}, "stage = 0"),
        ({"zero_optimization": {"stage": 2}, "fp16": {"enabled": True}}, "fp16.*take bf16"),
    ],
)
def test_what_the_loop_owns_is_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        read_settings(written(tmp_path, **data))


def test_an_average_needs_whole_weights(tmp_path):
    config = written(tmp_path, zero_optimization={"stage": 3})
    with pytest.raises(ConfigError, match=r"training.ema = 0.9 needs whole weights.*stage 3: set"):
        read_settings(dataclasses.replace(config, ema=0.9))


def test_a_missing_or_broken_file_is_said(tmp_path):
    config = dataclasses.replace(CONFIG, deepspeed="configs/deepspeed/zero9.json")
    with pytest.raises(ConfigError, match=r"no such file; shipped are .*zero1\.json.*zero2\.json"):
        read_settings(config)
    broken = tmp_path / "broken.json"
    broken.write_text("{stage: 2}")
    with pytest.raises(ConfigError, match=r"broken\.json is damaged .Expecting"):
        read_settings(dataclasses.replace(CONFIG, deepspeed=str(broken)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "holds list, `key: value` pairs are expected"),
        ('{"bf16": true}', "bf16 is true: expected"),
        ('{"zero_optimization": null}', "zero_optimization is null: expected"),
    ],
)
def test_a_file_of_another_form_is_said(tmp_path, text, told):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_settings(dataclasses.replace(CONFIG, deepspeed=str(tmp_path / "other.json")))
    with pytest.raises(ConfigError, match="no such file"):
        read_settings(dataclasses.replace(CONFIG, deepspeed=str(tmp_path)))


def test_an_offload_of_null_is_none(tmp_path):
    config = written(tmp_path, zero_optimization={"stage": 2, "offload_optimizer": None})
    assert read_settings(config).offload == "none"


def test_a_checkpoint_needs_the_same_order_of_numbers(tmp_path):
    """Not the same buckets or offload: with other ones a run goes on as it was, within rounding."""

    def needs(**zero):
        return read_settings(written(tmp_path, zero_optimization={"stage": 2} | zero)).needs

    free = needs(reduce_bucket_size=64, offload_optimizer={"device": "cpu"})
    assert free == needs() and needs(stage=3) != needs()
    assert needs(round_robin_gradients=True) != needs() != needs(sub_group_size=50)


def test_compiling_is_refused():
    with pytest.raises(ValueError, match="compile = true is for the engines plain and ddp"):
        LoopConfig(engine="deepspeed", compute=LoopComputeConfig(compile=True))
