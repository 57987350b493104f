"""The alignment stage: whole zoos, resumed zoos, damaged zoos."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.align import shards, stage
from dwf.align.config import AlignConfig
from dwf.align.groups import permute
from dwf.align.report import read_report
from dwf.align.stage import align_zoo
from dwf.align.symmetry import symmetry_of
from dwf.commands import COMMANDS
from dwf.errors import (
    ConfigError,
    CorruptShard,
    Preempted,
    RunConflict,
    TooFewNetworks,
)
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network, run_networks
from dwf.settings import load
from dwf.zoo.config import RecipeConfig
from dwf.zoo.layout import Layout
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo
from tests.zoos import facts_of

REPOSITORY = Path(__file__).parents[2]
NETWORK = MLPConfig((64, 16, 10))
SPLITS = np.array(["val", "train", "train", "test", "train", "train"])
NO_BARRIER = {"num_pairs": 0}


def write_zoo(
    root, num_shards=3, per_shard=6, epochs=(1, 2), name="zoo", architecture=NETWORK, shape=(64,)
):
    """Networks that are one network, shuffled, plus noise; the last shard is empty."""
    network = build_network(architecture)
    layout = Layout.of(network)
    groups = symmetry_of(network, layout, input_shape=shape)
    rng = np.random.default_rng(0)
    base_D = torch.from_numpy(rng.standard_normal(layout.size).astype(np.float32)) / 4
    is_buffer_D = torch.cat([torch.full((e.size,), e.role == "buffer") for e in layout.entries])
    base_D[is_buffer_D] = base_D[is_buffer_D].abs() + 1
    path = root / "zoos" / name
    told = {"input_shape": tuple(shape), "seed": 5, "recipe": RecipeConfig()}
    facts = facts_of(layout, architecture, num_shards=num_shards + 1, **told)
    create_zoo(path, facts)
    for shard in range(num_shards + 1):
        count = per_shard if shard < num_shards else 0
        weights, columns = [], []
        for network_number in range(shard * per_shard, shard * per_shard + count):
            order = [torch.from_numpy(rng.permutation(group.size)[None]) for group in groups]
            for epoch in epochs:
                noise_D = torch.from_numpy(rng.standard_normal(layout.size).astype(np.float32))
                noise_D[is_buffer_D] = 0.0
                weights.append(
                    permute((base_D + 0.05 * noise_D)[None], layout, groups=groups, orders=order)[0]
                )
                columns.append((network_number, epoch, SPLITS[network_number % 6]))
        blocks = []
        if count:
            numbers, at, split = (np.array(c) for c in zip(*columns, strict=True))
            table = {"network": numbers, "epoch": at, "split": split}
            blocks = [(table, torch.stack(weights).numpy())]
        write_shard(
            path / shard_name(shard, num_shards + 1),
            facts,
            index=shard,
            num_rows=len(weights),
            blocks=blocks,
            diverged=[(99, 7, "loss")] if shard == 0 else [],
        )
    return finish_zoo(path)


def files_of(path):
    """Every byte of a zoo but its run folder."""
    files = (p for p in path.rglob("*") if p.is_file() and path / "run" not in p.parents)
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_aligned_zoo_holds_the_same_networks_reordered(tmp_path):
    zoo = write_zoo(tmp_path)
    aligned = align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")
    assert len(aligned.shards) == len(zoo.shards)
    assert aligned.diverged == zoo.diverged
    assert aligned.columns.keys() == zoo.columns.keys()
    for name in ("network", "epoch", "split"):
        assert (aligned.columns[name] == zoo.columns[name]).all()
    aligned.verify()
    network = zoo.build_network()
    inputs = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    before, after = (
        run_networks(network, z.layout.unflatten(torch.from_numpy(z.read())), inputs=inputs)
        for z in (zoo, aligned)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    spread = [
        np.linalg.norm(z.read() - z.read(np.array([2])), axis=1).mean() for z in (zoo, aligned)
    ]
    assert spread[1] < 0.3 * spread[0]  # planted: noise is all that is left
    assert aligned.facts.provenance.to_json() == {
        "aligned_from": "zoo",
        "fingerprint": zoo.fingerprint,
        "method": "git_rebasin",
        "scale": "none",
        "reference": "network",
        "reference_network": 1,
        "seed": 0,
    }
    assert aligned.facts.data == zoo.facts.data


def test_permutations_beside_the_zoo_make_it_from_the_original(tmp_path):
    zoo = write_zoo(tmp_path)
    aligned = align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")
    with h5py.File(aligned.path / "permutations.h5") as file:
        network_N, order_NU = file["network"][()], file["group_0"][()]
        assert file["group_0"].attrs["axes"][0] == "layers.0.weight[0]"
    assert order_NU.dtype == np.int32
    assert (np.sort(order_NU, axis=1) == np.arange(16)).all()
    assert (network_N == np.arange(18)).all()
    per_row = torch.from_numpy(order_NU[zoo.columns["network"]]).long()  # one for both epochs
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    expected = permute(torch.from_numpy(zoo.read()), zoo.layout, groups=groups, orders=[per_row])
    assert np.array_equal(expected.numpy(), aligned.read())


def test_reference_network_can_be_chosen_among_training_networks(tmp_path):
    zoo = write_zoo(tmp_path)
    config = AlignConfig("zoo", reference_network=4, **NO_BARRIER)
    aligned = align_zoo(config, tmp_path, name="aligned")
    row = zoo.rows(epoch=2)[4:5]
    assert np.array_equal(aligned.read(row), zoo.read(row))
    with pytest.raises(ConfigError, match=r"reference_network = 3: not a training network"):
        align_zoo(AlignConfig("zoo", reference_network=3), tmp_path, name="other")
    assert not (tmp_path / "zoos" / "other").exists()


def test_iterated_mean_brings_training_networks_closer_and_uses_no_others(tmp_path, caplog):
    zoo = write_zoo(tmp_path)
    config = AlignConfig("zoo", reference="iterated_mean", **NO_BARRIER)
    with caplog.at_level("INFO", "dwf"):
        aligned = align_zoo(config, tmp_path, name="mean")
    to_one = align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="one")
    rows = zoo.rows(split="train", epoch="last")
    closeness = [np.linalg.norm(z.read(rows).mean(0)) for z in (zoo, to_one, aligned)]
    assert closeness[0] < closeness[1] <= closeness[2] * (1 + 1e-6)
    kept = torch.load(aligned.path / "run/checkpoints/reference.pt", weights_only=True)
    rounds = len(kept["closeness"])
    assert rounds < config.max_rounds
    told = [line for line in caplog.messages if line.startswith("reference of zoo: ")]
    assert len(told) == 2, "a line a minute, and two at the end"
    assert told[0].startswith(f"reference of zoo: {rounds} of {rounds} rounds, ")
    assert f"{max(kept['closeness']):.5g} in the best" in told[1]

    held_out = zoo.rows()[zoo.columns["split"] != "train"]
    shard = zoo.shards[0].path  # other held-out weights: the reference stays as it is
    other = write_zoo(tmp_path, name="other")
    with h5py.File(other.path / shard.name, "r+") as file:
        file["weights"][held_out[0]] = 0.5
        file["checksum"][held_out[0]] = 0
    _mend_checksums(other.path / shard.name)
    align_zoo(AlignConfig("other", reference="iterated_mean", **NO_BARRIER), tmp_path, name="b")
    path = tmp_path / "zoos" / "b" / "run/checkpoints/reference.pt"
    assert torch.equal(torch.load(path, weights_only=True)["best"], kept["best"])


def _mend_checksums(path):
    from dwf.zoo.checksums import row_checksums
    from dwf.zoo.shard import columns_checksum

    with h5py.File(path, "r+") as file:
        file["checksum"][:] = row_checksums(file["weights"][()])
        columns = {name: file[name][()] for name in file.attrs["columns"]}
        file.attrs["columns_checksum"] = columns_checksum(columns)


@pytest.mark.parametrize(
    ("how", "reads"),
    [({"reference": "network"}, 5), ({"reference": "iterated_mean", "max_rounds": 3}, 7)],
)
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, how, reads):
    zoo = write_zoo(tmp_path)
    monkeypatch.setattr(shards, "_CHUNK_BYTES", 150_000)  # a few networks at a time
    config = AlignConfig("zoo", num_pairs=5, **how)
    whole = align_zoo(config, tmp_path, name="whole")
    stops = 0
    while True:
        asked = iter(range(10**6))
        monkeypatch.setattr(preemption, "is_asked", lambda asked=asked: next(asked) >= reads)
        monkeypatch.setattr(preemption, "stop", _stop)
        try:
            resumed = align_zoo(config, tmp_path, name="resumed")
            break
        except Preempted:
            stops += 1
            assert stops < 50
    assert stops >= 3
    assert files_of(resumed.path) == files_of(whole.path)
    assert read_report(resumed) == read_report(whole)
    assert len(zoo) == len(resumed)


def _stop():
    raise Preempted


def test_killed_while_writing_it_goes_on_to_the_same_bytes(tmp_path):
    write_zoo(tmp_path, architecture=CNNConfig((4, 6), hidden=(10,)), shape=(1, 28, 28))
    config = AlignConfig("zoo", **NO_BARRIER)
    whole = align_zoo(config, tmp_path, name="whole")
    script = f"""
import os, signal, sys
from pathlib import Path
from dwf.align import shards, stage
from dwf.align.config import AlignConfig
made = shards._aligned_blocks
def killed(zoo, index, *rest):
    for block in made(zoo, index, *rest):
        yield block if index == 0 else os.kill(os.getpid(), signal.SIGKILL)
shards._aligned_blocks = killed
stage.align_zoo(AlignConfig("zoo", num_pairs=0), Path({str(tmp_path)!r}), name="killed")
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    path = tmp_path / "zoos" / "killed"
    finished = path / shard_name(0, 4)
    before = finished.stat().st_mtime_ns
    assert not (path / shard_name(1, 4)).exists()
    resumed = align_zoo(config, tmp_path, name="killed")
    assert finished.stat().st_mtime_ns == before  # what was finished is kept
    left = {name: data for name, data in files_of(resumed.path).items() if ".partial-" not in name}
    assert left == files_of(whole.path)


def test_finished_alignment_is_left_alone_and_a_lost_shard_is_made_anew(
    tmp_path, monkeypatch, caplog
):
    write_zoo(tmp_path)
    config = AlignConfig("zoo", **NO_BARRIER)
    whole = files_of(align_zoo(config, tmp_path, name="aligned").path)
    caplog.set_level("INFO", "dwf")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "find_reference", None)  # would fail
        align_zoo(config, tmp_path, name="aligned")
    assert "aligned is finished already" in caplog.text
    path = tmp_path / "zoos" / "aligned"
    (path / shard_name(1, 4)).unlink()
    assert files_of(align_zoo(config, tmp_path, name="aligned").path) == whole
    with pytest.raises(RunConflict, match="seed = 0, this one has 1"):
        align_zoo(AlignConfig("zoo", seed=1, **NO_BARRIER), tmp_path, name="aligned")


def test_names_of_other_zoos_are_refused(tmp_path):
    write_zoo(tmp_path)
    write_zoo(tmp_path, name="other")
    with pytest.raises(ConfigError, match="is the zoo to align"):
        align_zoo(AlignConfig("zoo"), tmp_path, name="zoo")
    with pytest.raises(RunConflict, match="is another zoo"):
        align_zoo(AlignConfig("zoo"), tmp_path, name="other")


def test_a_zoo_that_changed_under_its_aligned_one_is_refused(tmp_path):
    write_zoo(tmp_path)
    aligned = align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")
    shutil.rmtree(tmp_path / "zoos" / "zoo")
    write_zoo(tmp_path, per_shard=5)
    with pytest.raises(RunConflict, match=r"aligned from a zoo zoo of fingerprint .* now has"):
        align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")
    (aligned.path / shard_name(1, 4)).unlink()
    with pytest.raises(RunConflict, match=r"aligned from a zoo zoo of fingerprint .* now has"):
        align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")


def test_too_few_networks(tmp_path):
    write_zoo(tmp_path, num_shards=0)
    with pytest.raises(TooFewNetworks, match="holds no networks"):
        align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")
    write_zoo(tmp_path, num_shards=1, per_shard=1, name="held-out")  # its network is `val`
    with pytest.raises(TooFewNetworks, match="no training networks among its 2"):
        align_zoo(AlignConfig("held-out"), tmp_path, name="aligned")


@pytest.mark.parametrize("reference", ["network", "iterated_mean"])
def test_altered_row_is_found(tmp_path, reference):
    zoo = write_zoo(tmp_path)
    shard = zoo.shards[1]
    with h5py.File(shard.path, "r+") as file:
        file["weights"][5, 3] += 1
    with pytest.raises(CorruptShard, match=r"shard-00001-of-00004.h5 .*row 5"):
        align_zoo(AlignConfig("zoo", reference=reference), tmp_path, name="aligned")
    assert not (tmp_path / "zoos" / "aligned" / shard_name(1, 4)).exists()


def test_weights_that_are_not_finite_are_found(tmp_path):
    zoo = write_zoo(tmp_path)
    with h5py.File(zoo.shards[1].path, "r+") as file:
        file["weights"][5, 3] = np.nan
    _mend_checksums(zoo.shards[1].path)
    with pytest.raises(CorruptShard, match=r"network 8 \(row 17\) holds weights that are not"):
        align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")


def test_command_prints_the_report(tmp_path, capsys):
    write_zoo(tmp_path)
    words = ["--config", str(REPOSITORY / "configs/align/git_rebasin.yaml")]
    words += ["--zoo", "zoo", "--root", str(tmp_path)]
    COMMANDS["align"].run([*words, "--dry-run"])
    said = capsys.readouterr().out
    assert "zoos/zoo-aligned" in said and "36 rows; 1 group: 1 units (16)" in said
    COMMANDS["align"].run([*words, "--num-pairs", "0"])
    assert "L2 distance to the reference" in capsys.readouterr().out
    assert Zoo.open(tmp_path / "zoos" / "zoo-aligned").facts.aligned.aligned_from == "zoo"


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs/align").glob("*.yaml")), ids=str)
def test_shipped_settings_are_understood(file, tmp_path):
    stand_in = tmp_path / "own.yaml"
    stand_in.write_text(f"extends: {file}\nzoo: some\n")
    assert load(AlignConfig, stand_in).zoo == "some"


def test_report_is_json(tmp_path):
    write_zoo(tmp_path)
    aligned = align_zoo(AlignConfig("zoo", **NO_BARRIER), tmp_path, name="aligned")
    report = json.loads((aligned.path / "run" / "done.json").read_text())
    assert report["networks"] == 18
    assert report["l2_to_reference"]["after"] < 0.5 * report["l2_to_reference"]["before"]
    assert report["cosine_to_reference"]["after"] > 0.9 > report["cosine_to_reference"]["before"]
