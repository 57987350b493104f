"""dwf without what Linux alone has, and its words on systems and devices that are not for it."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from dwf import settings, systems
from dwf.errors import ConfigError
from dwf.extras import EXTRAS
from dwf.zoo.config import ZooConfig

ROOT = Path(__file__).parent.parent
LACKING = f"""
import builtins, io, os, signal, sys

for name in {[name for packages in EXTRAS.values() for name in packages]}:
    sys.modules[name] = None  # as if it were not installed
del os.sched_getaffinity, signal.sigwaitinfo

def without_proc(real):
    def opened(file, *arguments, **named):
        if isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith("/proc"):
            raise FileNotFoundError(2, "no such file", os.fspath(file))
        return real(file, *arguments, **named)
    return opened

io.open = builtins.open = without_proc(io.open)
"""
"""Every process begins with it, by the name sitecustomize: no extra, and no call of Linux alone."""
ZOO = {
    "network": {"kind": "mlp", "widths": [4, 8, 3]},
    "data": {"kind": "iris", "validation": 0.1},
    "count": 24,
    "recipe": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01},
    "split": {"val": 0.25, "test": 0.25},
    "shard": 12,
}
GENERATOR = {
    "zoo": "filled by the pipeline",
    "codec": {"kind": "pca"},
    "density": {
        "kind": "flow",
        "backbone": {"kind": "residual_mlp", "width": 8, "depth": 1},
        "training": {"steps": 4, "batch_size": 4, "warm_up": 1, "validate_every": 2},
        "solver": {"method": "euler", "steps": 2},
    },
}
PROGRAM = """
import sys
from dwf.commands import COMMANDS
if __name__ == "__main__":
    root = ["--root", sys.argv[1]]
    for words in sys.argv[2:]:
        name, *flags = words.split()
        COMMANDS[name].run(flags if name == "verify" else [*flags, *root])
"""


@pytest.mark.slow
def test_the_whole_way_runs_without_extras_and_without_what_macos_lacks(tmp_path):
    """Zoo by two worker processes, frame, generator, samples, report; then `verify`."""
    (tmp_path / "sitecustomize.py").write_text(LACKING)
    stages = {"zoo": ZOO, "align": {"zoo": "filled", "num_pairs": 4}, "generator": GENERATOR}
    stages |= {"sample": {"generator": "filled", "count": 4}}
    stages |= {"evaluate": {"zoo": "filled", "count": 4, "noise": [0.1], "averages": [2]}}
    files = {name: tmp_path / f"{name}.yaml" for name in stages}
    for name, data in stages.items():
        files[name].write_text(yaml.safe_dump(data))
    way = {name: str(file) for name, file in files.items()}
    way |= {"generators": [way.pop("generator")]}
    (tmp_path / "way.yaml").write_text(yaml.safe_dump(way))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    commands = [f"pipeline --config {tmp_path}/way.yaml --workers 2", f"verify {tmp_path}/zoos/way"]
    ran = subprocess.run(
        [sys.executable, str(program), str(tmp_path), *commands],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert list((tmp_path / "reports").glob("*/report.json"))


def test_cores_and_memory_are_known_where_linux_is_not(monkeypatch):
    on_linux, cores = systems.memory_mib(), systems.num_cores()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(systems, "Path", lambda name: Path(f"/nowhere{name}"))
    assert systems.num_cores() == os.cpu_count() >= cores
    assert systems.memory_mib() >= 0.5 * on_linux > 0, (
        "the most that was held, of pages of files too"
    )
    kib = systems.memory_mib() * 2**10
    monkeypatch.setattr(sys, "platform", "darwin")  # which counts bytes
    assert systems.memory_mib() == pytest.approx(kib / 2**20, rel=0.2)


LOADING = """
import signal

del signal.sigwaitinfo
loader._SECONDS_TO_SAVE = 0.1
loader._heed_parent(0)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_a_loading_process_ends_on_a_signal_where_nobody_says_who_sent_it():
    """In a process of its own: a fork of this one has its other threads' locks."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_windows_is_refused_in_one_sentence_before_anything_is_imported():
    program = "import sys; sys.platform = 'win32'; import dwf"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: dwf runs on Linux and macOS: on Windows install it within WSL 2\n"
    )


@pytest.mark.parametrize("words", [["--compute.device", "mps"], ["--compute.device=mps"]])
def test_mps_is_refused_in_one_sentence(words, tmp_path):
    said = r"'mps': allowed is one of auto, cpu, cuda; dwf does not compute on Apple's GPUs"
    with pytest.raises(ConfigError, match=said):
        settings.parse(ZooConfig, "configs/zoo/iris_mlp.yaml", argv=words)
    file = tmp_path / "mps.yaml"
    file.write_text(yaml.safe_dump(ZOO | {"compute": {"device": "mps"}}))
    with pytest.raises(ConfigError, match=said):
        settings.load(ZooConfig, file)
    settings.parse(ZooConfig, "configs/zoo/iris_mlp.yaml", argv=["--name", "mps"])


def test_the_lacking_process_is_what_it_is_said_to_be(tmp_path):
    """The test of the whole way would prove nothing where its processes lacked nothing."""
    (tmp_path / "sitecustomize.py").write_text(LACKING)
    program = """
        import importlib.util, os, signal
        from pathlib import Path
        assert importlib.util.find_spec("ray") is None
        assert "sched_getaffinity" not in vars(os) and "sigwaitinfo" not in vars(signal)
        try:
            Path("/proc/self/status").read_text()
        except FileNotFoundError:
            print("lacking")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert ran.stdout == "lacking\n", ran.stderr
