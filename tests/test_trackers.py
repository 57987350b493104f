"""Trackers: what they show is read back from their own files, and is what metrics.jsonl says."""

import json
import struct
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dwf import settings, trackers
from dwf.errors import ConfigError
from dwf.metrics import read_metrics
from dwf.run_folder import RunFolder
from dwf.settings import Launch
from dwf.stages import Product, stage
from dwf.zoo.config import ZooConfig

IRIS = "configs/zoo/iris_mlp.yaml"
CONFIG = {"seed": 3, "codec": {"kind": "pca"}}


def make_run(folder: Path, finish: bool = True) -> None:
    """A run of four steps, stopped after the third, of which the third was not saved."""
    run = RunFolder(folder, CONFIG)
    log = run.log()
    for step in (1, 2, 3):
        log.write(step, train_loss=1 / step, val_loss=2 / step, rate=0.5, device="cpu")
    log.close()
    run = RunFolder(folder, CONFIG)
    log = run.log(step=2)
    for step in (3, 4):
        log.write(step, train_loss=1 / step, val_loss=2 / step, rate=0.5, device="cpu")
    log.close()
    run.finish(density={"val_loss": 0.25, "device": "cpu"}, networks=7, whole=True)


def steps_of(folder: Path, name: str = "train_loss") -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in read_metrics(folder / "metrics.jsonl")]


def test_tensorboard_shows_the_metrics_of_a_resumed_run_once(tmp_path):
    trackers.track_with("tensorboard")
    make_run(tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for part, name in (("train", "train_loss"), ("validation", "val_loss")):
        of_part = EventAccumulator(str(tmp_path / "tensorboard" / part)).Reload()
        assert of_part.Tags()["scalars"] == ["loss"], "one name, so one chart"
        shown = [(event.step, event.value) for event in of_part.Scalars("loss")]
        assert shown == [(step, pytest.approx(loss)) for step, loss in steps_of(tmp_path, name)]
    assert board.Scalars("summary/density.val_loss")[0].value == 0.25
    assert [event.value for event in board.Scalars("rate")] == [0.5] * 4
    assert set(board.Tags()["scalars"]) == {"rate", "summary/density.val_loss", "summary/networks"}
    data = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(data).session_start_info.hparams
    assert started["seed"].number_value == 3 and started["codec.kind"].string_value == "pca"


def test_tensorboard_shows_each_trial_of_a_sweep_as_a_run(tmp_path):
    trackers.track_with("tensorboard")
    losses = [{"step": 5, "train_loss": 0.5, "val_loss": 0.75, "steps/s": 9.0, "device": "cpu"}]
    for _ in range(2):  # the sweep is widened: what is shown already is not shown again
        (board,) = RunFolder(tmp_path, CONFIG).trackers()
        point = {"width": 64, "kind": "pca"}
        board.show_trial(3, point, found={"val_accuracy": 0.9}, losses=losses)
        board.close()
    folder = tmp_path / "tensorboard" / "trial-00003"
    trial = EventAccumulator(str(folder)).Reload()
    assert [(one.step, one.value) for one in trial.Scalars("val_accuracy")] == [
        (3, pytest.approx(0.9))
    ]
    data = trial.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(data).session_start_info.hparams
    assert started["width"].number_value == 64 and started["kind"].string_value == "pca"
    for part, value in (("train", 0.5), ("validation", 0.75)):
        (event,) = EventAccumulator(str(folder / part)).Reload().Scalars("loss")
        assert (event.step, event.value) == (5, value)


def wandb_records(file: Path):
    """The records of a `.wandb` file: LevelDB's log format behind a head of seven bytes."""
    from wandb.proto import wandb_internal_pb2 as protocol

    data, at, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # what is left of a block holds no head
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = protocol.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def items_of(items) -> dict:
    return {".".join(one.nested_key) or one.key: json.loads(one.value_json) for one in items}


def test_wandb_offline_holds_metrics_settings_and_summary_in_one_run(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    trackers.track_with("wandb")
    folder = tmp_path / "runs" / "one"
    make_run(folder)
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    records = [record for file in files for record in wandb_records(file)]
    history = [items_of(one.history.item) for one in records if one.HasField("history")]
    shown = {row["_step"]: row["train_loss"] for row in history if "train_loss" in row}
    assert sorted(shown.items()) == steps_of(folder)
    summary: dict = {}
    for one in records:
        if one.HasField("summary"):
            summary |= items_of(one.summary.update)
    assert summary["density.val_loss"] == 0.25 and summary["networks"] == 7
    runs = [one.run for one in records if one.HasField("run")]
    (identity,) = {run.run_id for run in runs}
    assert json.loads((folder / "trackers.json").read_text()) == {"wandb": identity}
    assert runs[0].display_name == "runs/one" and runs[0].project == "dwf"
    assert items_of(runs[0].config.update)["codec.kind"] == "pca"
    assert not list(folder.parent.glob("wandb")), "all lies in the run folder"


@pytest.mark.slow
def test_mlflow_holds_metrics_settings_and_summary_in_one_run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trackers.track_with("mlflow")
    folder = tmp_path / "runs" / "one"
    make_run(folder)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dwf")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted((one.step, one.value) for one in history) == steps_of(folder)
    assert run.data.metrics["summary/networks"] == 7
    assert run.data.params == {"seed": "3", "codec.kind": "pca"}
    assert (run.info.run_name, run.info.status) == ("runs/one", "FINISHED")
    assert experiment.artifact_location.startswith(folder.as_uri())


def test_a_launch_says_where_to_look_even_where_all_is_done(tmp_path, caplog):
    trackers.track_with("tensorboard", "wandb", "mlflow")
    caplog.set_level("INFO", "dwf")
    with stage(Product("generator"), tmp_path / "one", config=CONFIG) as run:
        trackers.track_with()
        run.finish()
    trackers.track_with("tensorboard", "wandb", "mlflow")
    with stage(Product("generator"), tmp_path / "one", config=CONFIG) as run:
        assert run is None
    for told in ("tensorboard --logdir", "wandb sync", "mlflow ui --backend-store-uri sqlite:///"):
        assert sum(told in line for line in caplog.messages) == 2


def launch_of(file: Path | str, *words: str) -> Launch:
    return settings.parse(ZooConfig, str(file), argv=words, folder="zoos").launch


def test_the_setting_is_of_the_launch_and_in_no_settings(tmp_path):
    """One key under `compute:` in any stage's file, one flag; the stage's settings stay equal."""
    file = tmp_path / "own.yaml"
    file.write_text(f"extends: {Path(IRIS).absolute()}\ncompute: {{track: [wandb], device: cpu}}\n")
    parsed = settings.parse(ZooConfig, str(file), argv=[])
    assert parsed.launch.track == ("wandb",) and parsed.config.compute.device == "cpu"
    assert "compute.track" in parsed.describe() and f"['wandb']  ({'file'})" in parsed.describe()
    flagged = settings.parse(ZooConfig, str(file), argv=["--track", "tensorboard", "mlflow"])
    assert flagged.launch.track == ("tensorboard", "mlflow") and flagged.config == parsed.config
    assert flagged.origins["compute.track"] == "flag"
    assert "track" not in yaml.safe_dump(settings.to_dict(parsed.config))
    assert settings.load(ZooConfig, file) == parsed.config
    assert "track" not in settings.read_yaml(file)["compute"]


def test_tensorboard_is_the_default_where_it_is_installed_and_none_turns_it_off(monkeypatch):
    assert launch_of(IRIS).track == ("tensorboard",) and trackers._chosen == ("tensorboard",)
    assert launch_of(IRIS, "--track", "none").track == ("none",) and trackers._chosen == ()
    with pytest.raises(ConfigError, match="none stands alone"):
        launch_of(IRIS, "--track", "none", "tensorboard")
    monkeypatch.setattr(trackers.TensorBoard, "package", "a_package_that_nobody_has")
    assert launch_of(IRIS).track == ("none",) and trackers._chosen == ()


def test_a_resumed_run_has_the_trackers_it_was_begun_with(tmp_path):
    run = RunFolder(tmp_path / "zoos" / "one" / "run", settings.load(ZooConfig, IRIS))
    trackers.track_with("tensorboard")
    run.log().close()
    words = ("--resume", "--name", "one", "--root", str(tmp_path))
    assert launch_of(IRIS, *words).track == ("tensorboard",)
    assert launch_of(IRIS, *words, "--track", "wandb").track == ("wandb",)
    (run.path / "trackers.json").unlink()  # begun with none
    assert launch_of(IRIS, *words).track == ("none",)


def test_a_run_that_is_left_before_it_has_numbers_keeps_its_trackers(tmp_path):
    """As a zoo does whose launch submits its jobs and leaves: its numbers come at the end."""
    trackers.track_with("tensorboard")
    config = settings.load(ZooConfig, IRIS)
    with stage(Product("zoo", records="run"), tmp_path / "zoos" / "one", config=config) as run:
        assert run is not None and not (run.path / "tensorboard").exists()
    trackers.track_with()
    words = ("--resume", "--name", "one", "--root", str(tmp_path))
    assert launch_of(IRIS, *words).track == ("tensorboard",)
    run.log().close()
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert "settings/text_summary" in board.Tags()["tensors"], "it is new to the tracker"


def test_bad_input_is_told_before_any_work(tmp_path, monkeypatch):
    file = tmp_path / "own.yaml"
    file.write_text(f"extends: {Path(IRIS).absolute()}\ncompute: {{track: [wanbd]}}\n")
    with pytest.raises(ConfigError, match=r"own.yaml:2: compute.track\[0\] = 'wanbd': .*'wandb'"):
        launch_of(file)
    with pytest.raises(ConfigError, match="track = 'comet': allowed is one of tensorboard"):
        trackers.track_with("comet")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"'wandb' needs wandb, .*\[track\].*pip install"):
        launch_of(IRIS, "--track", "wandb")
    (tmp_path / "trackers.json").write_text("[")
    with pytest.raises(ConfigError, match=r"trackers\.json does not say"):
        trackers.recorded_in(tmp_path)
