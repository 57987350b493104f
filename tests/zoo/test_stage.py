"""The zoo stage on real data: units, resume after every kind of death, what the zoo says."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from dwf.cluster import local
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, RunConflict, WorkFailed
from dwf.networks.config import MLPConfig
from dwf.settings import to_dict
from dwf.zoo import stage
from dwf.zoo.cohorts import rows
from dwf.zoo.config import RecipeConfig, SplitConfig, VaryConfig, ZooComputeConfig, ZooConfig
from dwf.zoo.store import Zoo

CONFIG = ZooConfig(
    network=MLPConfig((64, 8, 10)),
    data=DataConfig("digits", validation=0.2),
    count=20,
    recipe=RecipeConfig(epochs=6, batch_size=64, learning_rate=0.01),
    vary=VaryConfig(initialisation=("default", "he")),
    split=SplitConfig(val=0.1, test=0.2),
    keep_epochs=(0, 3, 6),
    cohort=4,
    shard=8,
)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.*") if file.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Zoo:
    """The zoo, trained in this process without a pause."""
    return stage.train_zoo(CONFIG, tmp_path_factory.mktemp("whole"), name="zoo")


def test_the_table_says_what_each_row_is(whole):
    table = whole.columns
    assert len(whole) == 60 and list(table["network"][:6]) == [0, 0, 0, 1, 1, 1]
    assert list(table["epoch"][:3]) == [0, 3, 6] and list(table["step"][:3]) == [0, 54, 108]
    assert list(table["initialisation"][:6:3]) == ["default", "he"]
    assert [(table["split"][::3] == s).sum() for s in ("train", "val", "test")] == [14, 2, 4]
    last = whole.rows(epoch="last")
    assert table["val_accuracy"][last].mean() > 0.8 > table["val_accuracy"][::3].mean()
    whole.verify()


def test_scores_in_the_table_are_those_of_the_rows(whole):
    """Every row is scored again, alone, with the module's own forward."""
    network, data = whole.build_network(), whole.load_data()
    images, labels = data.test.batch(np_to_torch(range(len(data.test))))
    for row in (2, 31, 59):
        weights = np_to_torch(whole.read(np.array([row]))[0])
        network.load_state_dict(whole.layout.unflatten(weights))
        right = network(data.prepare(images)).argmax(1) == labels
        assert right.double().mean().item() == pytest.approx(whole.columns["test_accuracy"][row])


def np_to_torch(values):
    import torch

    return torch.from_numpy(np.asarray(values))


def test_a_finished_zoo_is_not_trained_again(whole):
    before = files_of(whole.path)
    stage.train_zoo(
        CONFIG, whole.path.parent.parent, name="zoo", run=lambda work: pytest.fail("ran")
    )
    assert files_of(whole.path) == before


def test_other_settings_are_refused_by_name(whole):
    other = dataclasses.replace(CONFIG, recipe=dataclasses.replace(CONFIG.recipe, epochs=7))
    with pytest.raises(
        RunConflict, match=r"recipe.epochs = 6, this one has 7: give another --name"
    ):
        stage.train_zoo(other, whole.path.parent.parent, name="zoo")


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(whole, tmp_path):
    zoo = stage.train_zoo(CONFIG, tmp_path, name="zoo", run=local.runner(workers=2))
    assert files_of(zoo.path) == files_of(whole.path)


def test_one_failing_shard_leaves_the_others_whole(whole, tmp_path, monkeypatch):
    """Shard 1 cannot write; the others finish; mended, the same call finishes the zoo."""
    folder = tmp_path / "zoos" / "zoo"
    blocked = folder / "shard-00001-of-00003.h5"
    original = rows.write_shard

    def write(path, *rest, **named):
        if path == blocked:
            raise OSError(28, "No space left on device", str(path))
        original(path, *rest, **named)

    monkeypatch.setattr(rows, "write_shard", write)

    def run(work):
        failures = []
        for index in range(work.count):
            try:
                work.unit(work.folder, index)
            except OSError as error:
                failures.append(error)
        raise WorkFailed(str(failures))

    with pytest.raises(WorkFailed, match="No space left"):
        stage.train_zoo(CONFIG, tmp_path, name="zoo", run=run)
    assert sorted(p.name for p in folder.glob("shard*")) == [
        "shard-00000-of-00003.h5",
        "shard-00002-of-00003.h5",
    ]
    monkeypatch.undo()
    assert files_of(stage.train_zoo(CONFIG, tmp_path, name="zoo").path) == files_of(whole.path)


def command(tmp_path: Path) -> list[str]:
    file = tmp_path / "zoo.yaml"
    slow = dataclasses.replace(CONFIG, compute=ZooComputeConfig(save_seconds=0.1))
    file.write_text(yaml.safe_dump(to_dict(slow)))
    return [sys.executable, "launch/zoo.py", "--config", str(file), "--root", str(tmp_path)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "preempted"])
def test_a_zoo_that_is_killed_goes_on_bitwise_equal(whole, tmp_path, number):
    """Kill the whole process group, or tell the parent to stop; then let it finish."""
    for seconds in (0.05, 0.3):
        process = subprocess.Popen(command(tmp_path), start_new_session=True)
        work = tmp_path / "zoos" / "zoo" / "run" / "work"
        deadline = time.monotonic() + 60
        while not list(work.glob("cohort-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)  # workers are told by their parent
        code = process.wait(60)
        assert code in (-number, 130, 0)
    subprocess.run(command(tmp_path), check=True, timeout=120)
    found = files_of(tmp_path / "zoos" / "zoo")
    expected = files_of(whole.path)
    assert {k: v for k, v in found.items() if k.endswith("h5")} == {
        k: v for k, v in expected.items() if k.endswith("h5")
    }
    Zoo.open(tmp_path / "zoos" / "zoo").verify()
    assert not list((tmp_path / "zoos").rglob("*.partial-*"))


def test_a_lost_shard_of_a_finished_zoo_is_made_again(tmp_path):
    config = dataclasses.replace(CONFIG, recipe=RecipeConfig(epochs=1), keep_epochs=())
    folder = stage.train_zoo(config, tmp_path, name="zoo").path
    before = files_of(folder) | files_of(folder / "run")
    (folder / "shard-00001-of-00003.h5").unlink()
    stage.train_zoo(config, tmp_path, name="zoo")
    after = files_of(folder) | files_of(folder / "run")
    recorded = {"command.txt", "environment.json", "uncommitted.diff"}
    assert {k: v for k, v in after.items() if k not in recorded} == {
        k: v for k, v in before.items() if k not in recorded
    }
    assert not (folder / "run" / "work").exists(), "what it was made of is left"
    stage.train_zoo(config, tmp_path, name="zoo").verify()


@pytest.mark.parametrize("widths", [(63, 8, 10), (64, 8, 9)])
def test_networks_that_do_not_fit_the_data_are_refused_before_a_folder_is_made(tmp_path, widths):
    config = dataclasses.replace(CONFIG, network=MLPConfig(widths))
    with pytest.raises(ConfigError, match=r"digits has 64 inputs and 10 classes: give 64 first"):
        stage.train_zoo(config, tmp_path, name="zoo")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_disk_that_fills_up_is_named_and_nothing_is_lost(whole, tmp_path):
    """No file may grow past 30 kB: every shard's write fails, as on a full disk."""
    limited = "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); "
    limited += "runpy.run_path(sys.argv[0], run_name='__main__')"
    _, *rest = command(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", limited, *rest],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"GIT_DIR": "/none"},  # a checkout's uncommitted.diff could be larger
    )
    assert ran.returncode == 2 and "3 of 3 units of" in ran.stderr, ran.stderr
    assert ran.stderr.count("File too large") >= 3, ran.stderr
    assert not list((tmp_path / "zoos" / "zoo").glob("shard*"))
    subprocess.run(command(tmp_path), check=True, timeout=120)
    assert len(Zoo.open(tmp_path / "zoos" / "zoo")) == len(whole)
