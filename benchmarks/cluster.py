"""What a cluster costs beside the work: a real Slurm of virtual nodes, units that only sleep.

Needs root on Debian (see tests/slurm_cluster.py). All nodes share this machine's cores, so what
each element spends on importing Python is slower the more nodes there are.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Result
from sleeping import SECONDS, Sleep

from dwf.cluster.config import SiteConfig
from dwf.cluster.watch import Slurm

HERE = Path(__file__).parent
TOOL = HERE.parent / "tests" / "slurm_cluster.py"
PLAN = "zoo.py --config configs/zoo/mnist_mlp.yaml --count 1000000 --nodes 16 --dry-run"


def run(quick: bool) -> list[Result]:
    """The plan of a large zoo; then, on a cluster, overheads and weak scaling."""
    results = [_plan(1 if quick else 5)]
    if os.geteuid():
        print("no cluster is started: that needs root")
        return results
    with TemporaryDirectory(prefix="dwf-", dir="/tmp") as folder:
        where = ["--dir", f"{folder}/slurm", "--port", "43200", "--prefix", "bench"]
        start = [sys.executable, str(TOOL), "start", "--nodes", "16", "--gpus", "1", *where]
        subprocess.run(start, check=True)
        os.environ["SLURM_CONF"] = f"{folder}/slurm/slurm.conf"
        try:
            sizes = (1, 4) if quick else (1, 4, 16)
            results += [_scaling(Path(folder), nodes, 1 if quick else 3) for nodes in sizes]
        finally:
            subprocess.run([sys.executable, str(TOOL), "stop", *where[:2]], check=True)
    return results


def _plan(repeats: int) -> Result:
    """`--dry-run` of a million networks: seconds, and anonymous memory at its end."""
    inside = (
        "import atexit, re, runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, 'launch'); "
        "atexit.register(lambda: print('RssAnon', re.search(r'RssAnon:\\s*(\\d+)', "
        "open('/proc/self/status').read())[1])); "
        "runpy.run_path('launch/' + sys.argv[0], run_name='__main__')"
    )
    seconds, memory = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        words = [sys.executable, "-c", inside, *PLAN.split()]
        ran = subprocess.run(
            words, capture_output=True, text=True, encoding="utf-8", check=True, cwd=HERE.parent
        )
        seconds.append(time.perf_counter() - start)
        memory.append(int(ran.stdout.split("RssAnon")[1]) / 1024)
    name = "--dry-run of 1,000,000 networks"
    figures = {"anonymous memory (MiB)": statistics.median(memory)}
    targets = {"anonymous memory (MiB)": ("<=", 477), f"{name} (s)": ("<=", 5)}
    return Result(f"plan: {name}", {name: seconds}, figures=figures, targets=targets)


def _scaling(folder: Path, nodes: int, repeats: int) -> Result:
    """Two units for each node, one at a time on each: what of the time is not sleep."""
    setup = (f"export PYTHONPATH={HERE} DWF_SLEEP={SECONDS}",)
    site = SiteConfig(gpus_per_node=1, cpus_per_node=2, time="60", setup=setup)
    shares, waits, ours = [], [], []
    for repeat in range(repeats):
        work = Sleep(folder / f"sleep-{nodes}-{repeat}", 2 * nodes)
        work.folder.mkdir()
        (work.folder / "count").write_text(str(work.count), encoding="utf-8")
        began, cpu = time.time(), time.process_time()
        Slurm(site, nodes)(work)
        cpu, took = time.process_time() - cpu, time.time() - began
        times = [file.read_text(encoding="utf-8").split() for file in work.folder.glob("unit-*")]
        shares.append(1 - 2 * SECONDS / took)
        waits.append(statistics.median(sorted(float(t[0]) for t in times)[:nodes]) - began)
        ours.append(60 * cpu / took)
    importing = _import_seconds()
    figures = {
        "share of the time that is not work": statistics.median(shares),
        "submit to the first step of a shard, median (s)": statistics.median(waits),
        "... minus importing (s)": statistics.median(waits) - importing,
        "importing, alone on this machine (s)": importing,
        "waiting launcher (CPU s a minute)": statistics.median(ours),
    }
    name = f"cluster: {nodes} nodes, {2 * nodes} units of {SECONDS:.0f} s, n = {repeats}"
    return Result(name, {}, figures=figures)


def _import_seconds() -> float:
    """What an element imports before it can work."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        program = "import submitit.core._submit, dwf.cluster.element"
        subprocess.run([sys.executable, "-c", program], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
