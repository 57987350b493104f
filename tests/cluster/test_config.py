"""What flags and a site's file say together, and what becomes of it in an array."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from dwf.cluster import backend, submit
from dwf.cluster import slurm as slurm_module
from dwf.cluster.config import (
    ClusterLaunch,
    SiteConfig,
    chosen_backend,
    minutes,
    read_site,
    words_of,
)
from dwf.cluster.watch import Slurm
from dwf.errors import ConfigError
from dwf.settings import load, parse, to_dict
from dwf.zoo.config import ZooConfig
from tests.cluster.test_local import Work

SITES = sorted((Path(__file__).parents[2] / "configs" / "cluster").glob("*.yaml"))


@pytest.mark.parametrize("file", SITES, ids=lambda file: file.stem)
def test_every_site_is_understood(file):
    load(SiteConfig, file)
    assert file.read_text().startswith("# ") and "python launch/" in file.read_text()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--workers", "1"],
        ["--nodes", "16", "--cluster", SITES[0].stem, "--time", "1:00:00", "--no-wait"],
        ["--nodes", "2", "--gpus-per-node", "0", "--local"],
        ["--backend", "ray"],
    ],
)
def test_a_launch_hands_on_where_it_works(words):
    """What a second command understands of its words is what the first was told."""
    file = "configs/zoo/iris_mlp.yaml"
    told = parse(ZooConfig, file, argv=words, flags=ClusterLaunch).launch
    assert sorted(words_of(told)) == sorted(words)
    assert parse(ZooConfig, file, argv=words_of(told), flags=ClusterLaunch).launch == told


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("30", 30),
        ("30:01", 31),
        ("4:00:00", 240),
        ("1:00:30", 61),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("1-00:00:01", 1441),
    ],
)
def test_times_are_slurms(time, expected):
    assert minutes(time) == expected


@pytest.mark.parametrize("time", ["soon", "1:2:3:4", "", "0", "-5", "2", "0-00:01"])
def test_times_that_are_none_are_refused(time):
    with pytest.raises(ValueError, match="time = "):
        SiteConfig(time=time)


def test_a_time_that_yaml_reads_as_a_number_is_refused(tmp_path):
    (tmp_path / "site.yaml").write_text("time: 4:00:00\n")
    with pytest.raises(ConfigError, match=r"site.yaml:1: time = 14400: expected str"):
        load(SiteConfig, tmp_path / "site.yaml")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "local"),
        ({"nodes": 2}, "slurm"),
        ({"nodes": 2, "local": True}, "local"),
        ({"backend": "slurm"}, "slurm"),
        ({"backend": "ray"}, "ray"),
    ],
)
def test_what_flags_choose(flags, expected):
    assert chosen_backend(ClusterLaunch(Path("x"), **flags)) == expected


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"local": True, "backend": "ray"}, "--local and --backend ray: give one"),
        ({"nodes": 2, "backend": "ray"}, "--nodes 2 and --backend ray: .* slurm/zoo.sh"),
        ({"partition": "low"}, "--partition is about Slurm: add --nodes"),
        ({"wait": False, "local": True}, "--no-wait is about Slurm"),
        ({"time": "30", "backend": "ray"}, "--time is about Slurm"),
    ],
)
def test_flags_that_contradict_each_other_or_have_no_effect_are_refused(tmp_path, flags, told):
    with pytest.raises(ConfigError, match=told):
        backend.runner(ClusterLaunch(Path("x"), **flags), tmp_path)


def test_a_resumed_launch_goes_on_as_recorded_but_for_what_flags_say(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_module, "require_slurm", lambda: None)
    site = SiteConfig(partition="low", time="33", gpus_per_node=2, cpus_per_node=8)
    told = {"nodes": 3, "workers": 1, "site": to_dict(site)}
    (tmp_path / "run" / "jobs").mkdir(parents=True)
    record = tmp_path / "run" / "jobs" / "launch.json"
    record.write_text(json.dumps(backend.signed(told)))

    def resumed(**flags) -> Slurm:
        launch = ClusterLaunch(Path("x"), resume=True, **flags)
        return backend.runner(launch, tmp_path).keywords["runs"]

    assert resumed() == Slurm(site, 3, wait=True, workers=1)
    changed = dataclasses.replace(site, time="60")
    assert resumed(nodes=5, workers=2, time="60") == Slurm(changed, 5, wait=True, workers=2)
    assert (
        "runs"
        not in backend.runner(ClusterLaunch(Path("x"), resume=True, local=True), tmp_path).keywords
    )
    setup = told | {"site": told["site"] | {"setup": ["touch ran"]}}
    for forged in (setup, backend.signed(told) | setup, told):
        record.write_text(json.dumps(forged))
        with pytest.raises(ConfigError, match=r"launch\.json says .* shell lines .*--cluster FILE"):
            resumed()


def test_a_resumed_launch_tells_where_the_sites_file_says_otherwise(tmp_path, monkeypatch, caplog):
    """A file that was mended after a refusal has no effect by itself, which must be said."""
    monkeypatch.setattr(slurm_module, "require_slurm", lambda: None)
    monkeypatch.setattr(Slurm, "__call__", lambda self, work: None)
    file, work = tmp_path / "site.yaml", Work(tmp_path)
    monkeypatch.setenv("DWF_CLUSTER", str(file))

    def give(partition: str, **flags) -> str:
        caplog.clear()
        file.write_text(f"partition: {partition}\ngpus_per_node: 0\ncpus_per_node: 2\n")
        backend.runner(ClusterLaunch(Path("x"), **flags), tmp_path)(work)
        return caplog.text

    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "first launch" not in give("gpu", nodes=2)
    assert "first launch" not in give("gpu", resume=True)
    said = f"as at the first launch (partition gpu); what {file} says now is taken with --cluster"
    assert said in give("low", resume=True)
    assert "first launch" not in give("low", resume=True, cluster=file)
    assert "first launch" not in give("low", resume=True), "and is the record from then on"


def test_a_wrong_partition_is_told_where_the_site_says_all_else(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm_module, "_ask", lambda *words: "main*|64|(null)\nlow|64|(null)\n")
    site = SiteConfig(partition="low", gpus_per_node=0, cpus_per_node=2)
    assert slurm_module.complete(site) == site
    with pytest.raises(ConfigError, match="partition = gpu: `sinfo` knows low, main: name one"):
        slurm_module.complete(dataclasses.replace(site, partition="gpu"))


def test_flags_take_the_place_of_what_the_site_says(tmp_path, monkeypatch):
    (tmp_path / "site.yaml").write_text('partition: gpu\ntime: "10"\ngpus_per_node: 8\n')
    monkeypatch.setenv("DWF_CLUSTER", str(tmp_path / "site.yaml"))
    site = read_site(ClusterLaunch(Path("x"), partition="low", time="2:00:00"))
    assert (site.partition, site.time, site.gpus_per_node) == ("low", "2:00:00", 8)
    with pytest.raises(ConfigError, match="command line: time = 'x'"):
        read_site(ClusterLaunch(Path("x"), time="x"))
    with pytest.raises(ConfigError, match="no such file"):
        read_site(ClusterLaunch(Path("x"), cluster=tmp_path / "none.yaml"))


@pytest.mark.parametrize(("device", "idle"), [("cpu", True), ("auto", False), ("cuda", False)])
def test_idle_gpus_are_told_of_only_where_no_unit_can_use_one(tmp_path, monkeypatch, device, idle):
    """A login node sees no GPU, and work of `auto` finds those of its nodes."""
    monkeypatch.setattr(slurm_module, "has_slurm", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "site.yaml").write_text('time: "10"\ngpus_per_node: 2\ncpus_per_node: 2\n')
    monkeypatch.setenv("DWF_CLUSTER", str(tmp_path / "site.yaml"))
    (folder := tmp_path / "work").mkdir()
    work = Work(folder, device=device)
    assert ("would lie idle" in backend.describe(ClusterLaunch(Path("x"), nodes=2), work)) == idle


def test_pickles_of_jobs_to_come_are_removed_before_one_is_submitted(tmp_path):
    for name in ("7_0_submitted.pkl", "8_0_submitted.pkl", "9_0_0_result.pkl", "8_submission.sh"):
        (tmp_path / name).touch()
    submit.forget_pickles(tmp_path, alive=["7"])
    assert {file.name for file in tmp_path.iterdir()} == {"7_0_submitted.pkl", "8_submission.sh"}


def cut(tmp_path, units, nodes, workers=None, **site):
    array = submit.cut_units(
        Work(tmp_path), range(units), nodes=nodes, site=SiteConfig(**site), workers=workers
    )
    assert sorted(unit for one in array.elements for unit in one) == list(range(units))
    return array, sorted({len(one) for one in array.elements})


@pytest.mark.parametrize(
    ("units", "nodes", "site", "elements", "sizes", "gpus", "cpus"),
    [
        (16, 16, {"gpus_per_node": 1, "cpus_per_node": 64}, 16, [1], 1, 64),
        (16, 16, {"gpus_per_node": 8, "cpus_per_node": 64}, 16, [1], 1, 8),
        (256, 16, {"gpus_per_node": 8, "cpus_per_node": 64}, 32, [8], 8, 64),
        (20, 16, {"gpus_per_node": 8, "cpus_per_node": 96}, 10, [2], 2, 24),
        (100, 2, {"gpus_per_node": 0, "cpus_per_node": 32}, 4, [4, 32], 0, 32),
        (1, 16, {}, 1, [1], 0, 1),
    ],
)
def test_an_element_is_a_node_full_at_most(
    tmp_path, monkeypatch, units, nodes, site, elements, sizes, gpus, cpus
):
    monkeypatch.delenv("SLURM_CONF", raising=False)
    array, found = cut(tmp_path, units, nodes=nodes, **site)
    assert (len(array.elements), found, array.gpus, array.cpus) == (elements, sizes, gpus, cpus)
    assert array.parameters["array_parallelism"] == nodes


def test_an_array_is_never_longer_than_the_cluster_takes(tmp_path):
    """The usual MaxArraySize, 1001: indices up to 1000."""
    array, sizes = cut(tmp_path, 62_500, nodes=16, gpus_per_node=8, cpus_per_node=64)
    assert len(array.elements) <= 1000 and max(sizes) == 63 and array.workers == 8


def test_a_part_of_a_node_asks_for_its_part_of_the_memory(tmp_path):
    site = {"gpus_per_node": 8, "cpus_per_node": 64, "memory_gb": 512.0}
    array, _ = cut(tmp_path, 32, nodes=16, **site)
    assert array.workers == 2 and array.parameters["mem"] == f"{128 * 1024}MB"


def test_no_slurm_is_an_error_and_no_fall_back(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no `sbatch` on this machine: add --local to work here"):
        slurm_module.require_slurm()


@pytest.mark.cluster
def test_what_a_site_does_not_say_is_asked_of_the_cluster(slurm):
    found = slurm_module.complete(SiteConfig())
    assert (found.gpus_per_node, found.cpus_per_node) == (1, 64)
    assert slurm_module.complete(SiteConfig(partition="low", gpus_per_node=0)).gpus_per_node == 0
    assert slurm_module.complete(SiteConfig(partition="main,low")).cpus_per_node == 64
    with pytest.raises(ConfigError, match="partition = gpu: `sinfo` knows low, main: name one"):
        slurm_module.complete(SiteConfig(partition="gpu"))
    assert slurm_module.most_elements() == 1000
