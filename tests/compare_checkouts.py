#!/usr/bin/env python3
"""Whether two checkouts of dwf make the same, byte for byte: a refactoring has to.

    python tests/compare_checkouts.py OLD NEW [--work FOLDER] [--only iris,digits] [--allow PATTERN]

The same commands are given in both checkouts, one after the other and on one thread, each checkout
with a root of its own. Then what they wrote is compared: zoos byte by byte, codecs, densities and
generators by their tensors, reports and summaries as data. It prints a table and ends with 1 where
anything differs. Start it with the Python that dwf is installed for; the datasets must be there
(`python -m dwf data mnist cifar10`).

What a commit made is kept in `--work` and taken from there the next time; a checkout with changes
that are not committed is run anew. Two checkouts of one commit, or one given twice, are both run:
that shows that the commands repeat themselves.

A setting that is new, with a default, changes what folders tell of themselves, and so does a key
that has another name. Where that is all, it is let pass by name, and still told:

    --allow '*:digest' --allow '*:provenance.digest' --allow '*/report.json:facts.*'
    --allow '*:codec.groups.*' --allow '*:codec.sections.*'

Nothing of dwf is imported: the files are read by what they are.
"""

import argparse
import fcntl
import fnmatch
import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
import yaml
from safetensors import safe_open

# --- what is run -------------------------------------------------------------------------------

# Each line is given as `python launch/LINE --root ROOT`. The flags are those that a refactoring
# has least reason to rename. A cohort of 2 keeps zoos of convolutions from the timing of what is
# fastest, whose outcome is the machine's and not the settings'. Four training networks are the
# fewest that a report takes.
CASES: dict[str, tuple[str, ...]] = {
    "iris": (
        "zoo.py --workers 1 --config configs/zoo/iris_mlp.yaml --recipe.epochs 40",
        "align.py --config configs/align/git_rebasin.yaml --zoo iris_mlp",
        "generator.py --config configs/generator/deepweightflow_iris.yaml --name iris"
        " --density.training.steps 600 --density.training.validate-every 100",
        "sample.py --config configs/sample/default.yaml --generator iris --count 40",
        "evaluate.py --config configs/evaluate/default.yaml --zoo iris_mlp-aligned"
        " --samples iris-samples --count 20",
    ),
    "digits": (
        "zoo.py --workers 1 --config configs/zoo/digits_4096.yaml --name digits --count 80"
        " --shard 40 --recipe.epochs 2 --split.val 0.1 --split.test 0.1",
        "align.py --config configs/align/balanced.yaml --zoo digits --num-pairs 8",
        "generator.py --config configs/generator/digits_neurons.yaml --name neurons"
        " --zoo digits-aligned --density.training.steps 200 --density.training.batch-size 16"
        " --density.training.validate-every 50 --density.backbone.width 32"
        " --density.backbone.depth 2 --likelihood 4",
        "sample.py --config configs/sample/few.yaml --generator neurons --count 12"
        " --condition 0.5 --guidance 1.5",
        "generator.py --config configs/generator/deepweightflow_digits_pca.yaml --name pca"
        " --zoo digits-aligned --density.training.steps 200 --density.training.batch-size 16"
        " --density.training.validate-every 50",
        "sample.py --config configs/sample/few.yaml --generator pca --count 12",
        "evaluate.py --config configs/evaluate/default.yaml --zoo digits-aligned"
        " --samples neurons-samples pca-samples --count 12",
    ),
    "sane": (
        "zoo.py --workers 1 --config configs/zoo/sane_cnn_mnist_small.yaml --name sane --count 12"
        " --cohort 2 --shard 4 --recipe.epochs 2 --keep-epochs 1 2 --data.train-images 400"
        " --data.validation 0.002 --data.test-images 200 --train-scores 50",
        "align.py --config configs/align/iterated_mean.yaml --zoo sane --num-pairs 4",
        "generator.py --config configs/generator/sane_cnn_mnist.yaml --name sane"
        " --zoo sane-aligned --codec.training.steps 50 --codec.training.batch-size 8 --gate.anyway"
        " --codec.training.validate-every 25",
        "sample.py --config configs/sample/few.yaml --generator sane --count 6",
        "evaluate.py --config configs/evaluate/convolutional.yaml --zoo sane-aligned"
        " --samples sane-samples --count 4",
    ),
    "resnet20": (
        "zoo.py --workers 1 --config configs/zoo/resnet20_narrow_cifar10.yaml --name resnet20"
        " --count 6 --cohort 2 --shard 2 --split.val 0.16 --split.test 0.16"
        " --data.train-images 192 --data.validation 0.002 --data.test-images 100"
        " --train-scores 50",
        "align.py --config configs/align/iterated_mean.yaml --zoo resnet20 --num-pairs 2",
        "generator.py --config configs/generator/resnet20_narrow_cifar10.yaml --name resnet20"
        " --zoo resnet20-aligned --density.training.steps 100 --density.training.batch-size 4"
        " --density.training.validate-every 50 --density.training.warm-up 10",
        "sample.py --config configs/sample/few.yaml --generator resnet20 --count 3",
        "evaluate.py --config configs/evaluate/convolutional.yaml --zoo resnet20-aligned"
        " --samples resnet20-samples --count 2 --noise 0.1 --averages 2 all"
        " --batchnorm.images 100",
    ),
    "iris_whole": ("pipeline.py --config configs/pipeline/iris_mlp.yaml",),
}
# Four minutes of 30,000 steps: only where `--only` names it.
SLOW = ("iris_whole",)

# --- what is compared --------------------------------------------------------------------------

How = Literal["bytes", "arrays", "data", "settings"]


@dataclass(frozen=True)
class Rule:
    """Which files make a row of the table, and how they are compared."""

    pattern: str
    """Regular expression of a path under the root; its group is the row's folder."""
    what: str
    """The row's word beside the folder."""
    how: How
    """`bytes`: all bytes; `arrays`: tensors bit by bit and what else both sides say, wherever in
    the row's files a tensor lies; `data`: every word and number, but for times; `settings`: as
    data, told and not held against it."""


# The first that matches a path decides; what none matches is counted as not compared.
RULES = (
    Rule(r"(zoos/[^/]+)/(?:zoo\.json|[^/]+\.h5)", "zoo", how="bytes"),
    Rule(r"(reports/[^/]+)/report\.json", "report", how="data"),
    Rule(r"((?:zoos|runs)/[^/]+)/(?:.+/)?metrics\.jsonl", "metrics", how="arrays"),
    Rule(r"()(?:.+)/done\.json", "summaries", how="data"),
    Rule(r"()(?:.+)/config\.yaml", "settings", how="settings"),
    Rule(
        r"(runs/[^/]+)/codec/(?!training\.)[^/]+\.(?:json|npz|npy|pt|safetensors)",
        "codec",
        how="arrays",
    ),
    Rule(
        r"(runs/[^/]+)/density/(?!training\.)[^/]+\.(?:json|npz|npy|pt|safetensors)",
        "density",
        how="arrays",
    ),
    Rule(r"(runs/[^/]+)/(?:generator\.json|[^/]+\.pt)", "generator", how="arrays"),
)
# Keys that tell of time and machine, and those with "/s" in them.
TIMED = ("seconds", "data_wait", "memory_GiB", "mfu")
MOST_TOLD = 8


@dataclass(frozen=True)
class Array:
    """A tensor, array or series; equal where it is so bit by bit."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


Scalar = str | int | float | bool | None
Contents = dict[str, Array | Scalar]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    case: str
    part: str
    files: int
    bytes: int
    result: str
    differences: tuple[str, ...] = ()
    """`FILE:KEY: old -> new`; none where the two sides are equal."""


def compare_roots(
    case: str, old: Path, new: Path, *, allow: Sequence[str] = ()
) -> tuple[list[Row], Counter[str]]:
    """Compare what two checkouts wrote under their roots.

    Args:
        case: the rows' name.
        old: root of the one.
        new: root of the other.
        allow: patterns (`*`, `?`) of `FILE:KEY` that may differ; these are told.

    Returns:
        The rows, and the names of files that are not compared, counted over both sides.
    """
    parts: dict[tuple[str, How], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    left_out: Counter[str] = Counter()
    for side, root in enumerate((old, new)):
        for path in sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()):
            found = _part_of(path)
            if found is None:
                left_out[_plain_name(path)] += 1
            else:
                parts[found][side].append(path)
    rows = [
        _compare_part(case, part, how, (old, files[0]), (new, files[1]), allow)
        for (part, how), files in sorted(parts.items())
    ]
    return rows, left_out


def _part_of(path: str) -> tuple[str, How] | None:
    for rule in RULES:
        if match := re.fullmatch(rule.pattern, path):
            return f"{match[1]} {rule.what}".strip(), rule.how
    return None


def _plain_name(path: str) -> str:
    """The file's name, numbers left out: checkpoints of many steps are one name."""
    return re.sub(r"\d+", "N", Path(path).name)


def _compare_part(
    case: str,
    part: str,
    how: How,
    old: tuple[Path, list[str]],
    new: tuple[Path, list[str]],
    allow: Sequence[str],
) -> Row:
    (old_root, old_files), (new_root, new_files) = old, new
    size = sum((old_root / file).stat().st_size for file in old_files)
    about = case, part, len(old_files), size
    files = sorted({*old_files, *new_files})
    unequal = [file for file in files if _bytes(old_root / file) != _bytes(new_root / file)]
    if not unequal:
        return Row(*about, "equal bytes")
    before, now = _contents(old_root, old_files), _contents(new_root, new_files)
    found, layout = _differences(before, now, how)
    if how == "bytes":
        told = {key.partition(":")[0] for key, _ in found}
        found += [(file, "other bytes, of equal content") for file in unequal if file not in told]
    held, allowed = [], []
    for key, text in found:
        free = any(fnmatch.fnmatchcase(key, pattern) for pattern in allow)
        (allowed if free else held).append(f"{key}: {text}")
    result = _verdict(how, before, held, layout)
    if allowed:
        result += f"; allowed to differ: {', '.join(allowed)}"
    return Row(*about, result, () if how == "settings" else tuple(held))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _verdict(how: How, before: Contents, held: list[str], layout: list[str]) -> str:
    """Say in words what was found."""
    if held:
        more = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
        word = "settings differ" if how == "settings" else "DIFFERS"
        return f"{word}: {held[0]}{more}"
    if how == "bytes":
        return "equal bytes elsewhere"
    if how != "arrays":
        return "equal data, times left out"
    tail = f"; the files' layout differs: {_shorten(layout)}" if layout else ""
    return _count_arrays(before) + tail


def _count_arrays(contents: Contents) -> str:
    arrays = [leaf for leaf in contents.values() if isinstance(leaf, Array) and leaf.data]
    if not arrays:
        return "equal words and numbers"
    if all(array.dtype == "series" for array in arrays):
        return f"equal series ({len(arrays)}), times left out"
    return f"equal tensors ({len(arrays)} of {sum(len(array.data) for array in arrays):,} bytes)"


def _shorten(words: list[str]) -> str:
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return ", ".join(words[:4]) + more


def _differences(
    before: Contents, now: Contents, how: How
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (key, what differs) of what must be equal, and in words what may lie elsewhere."""
    both = [key for key in before if key in now]
    found = [(k, _told(before[k], now[k])) for k in both if not _equal(before[k], now[k])]
    gone = [key for key in before if key not in now]
    added = [key for key in now if key not in before]
    layout: list[str] = []
    if how == "arrays":
        light = [f"-{key}" for key in gone if not _is_full(before[key])]
        light += [f"+{key}" for key in added if not _is_full(now[key])]
        gone = [key for key in gone if _is_full(before[key])]
        added = [key for key in added if _is_full(now[key])]
        gone, added, moved = _moved(before, now, gone, added)
        layout = moved + light
    found += [(key, f"{_short(before[key])} is gone") for key in gone]
    found += [(key, f"{_short(now[key])} is new") for key in added]
    return found, layout


def _is_full(leaf: Array | Scalar) -> bool:
    return isinstance(leaf, Array) and bool(leaf.data)


def _moved(
    before: Contents, now: Contents, gone: list[str], added: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Pair arrays that are gone with equal new ones; return those left over, and the pairs."""
    places: dict[Array | Scalar, list[str]] = defaultdict(list)
    for key in added:
        places[now[key]].append(key)
    left, moved = [], []
    for key in gone:
        if there := places[before[key]]:
            moved.append(f"{key} => {there.pop(0)}")
        else:
            left.append(key)
    return left, [key for keys in places.values() for key in keys], moved


def _equal(old: Array | Scalar, new: Array | Scalar) -> bool:
    """Compare scalars by type and digits, so that a number is itself also where it is NaN."""
    if isinstance(old, Array) or isinstance(new, Array):
        return old == new
    return (type(old), repr(old)) == (type(new), repr(new))


def _told(old: Array | Scalar, new: Array | Scalar) -> str:
    """What differs, with the first number that does."""
    alike = isinstance(old, Array) and isinstance(new, Array) and str(old) == str(new)
    if not alike or len(old.data) != len(new.data) or old.dtype == "series":
        return f"{_short(old)} -> {_short(new)}"
    width = len(old.data) // max(1, int(np.prod(old.shape)))
    pair = [np.frombuffer(array.data, np.uint8).reshape(-1, width) for array in (old, new)]
    places = np.flatnonzero((pair[0] != pair[1]).any(1))
    first = [int(i) for i in np.unravel_index(places[0], old.shape)]
    values = [_number(old.dtype, rows[places[0]].tobytes()) for rows in pair]
    return f"{old}: {len(places)} numbers, first at {first}: {values[0]} -> {values[1]}"


def _number(dtype: str, data: bytes) -> str:
    try:
        return repr(np.frombuffer(data, dtype)[0].item())
    except TypeError:  # numpy has no such type
        return f"0x{data.hex()}"


def _short(leaf: Array | Scalar) -> str:
    if isinstance(leaf, Array) and leaf.dtype == "series":
        text = leaf.data.decode()
        return text if len(text) <= 60 else f"{text[:25]} ... {text[-30:]}"
    text = str(leaf) if isinstance(leaf, Array) else repr(leaf)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- what files hold ---------------------------------------------------------------------------


def _contents(root: Path, files: list[str]) -> Contents:
    """Return what files hold: `FILE:KEY` -> array or scalar, but for what tells of time."""
    found: Contents = {}
    for file in files:
        for key, leaf in READERS[Path(file).suffix](root / file):
            if not _is_timed(key):
                found[f"{file}:{key}"] = leaf
    return found


def _is_timed(key: str) -> bool:
    last = key.rsplit(".", 1)[-1]
    return last in TIMED or "/s" in last


Leaves = Iterator[tuple[str, Array | Scalar]]


def _flatten(data: object, key: str = "") -> Leaves:
    """Yield the leaves of nested containers under dotted keys."""
    if isinstance(data, dict):
        items = [(str(name), value) for name, value in data.items()]
    elif isinstance(data, (list, tuple)):
        items = [(str(place), value) for place, value in enumerate(data)]
    else:
        yield key, _leaf(data)
        return
    if not items:
        yield key, repr(data)
    for name, value in items:
        yield from _flatten(value, f"{key}.{name}" if key else name)


def _leaf(value: object) -> Array | Scalar:
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return Array(str(value.dtype).removeprefix("torch."), tuple(value.shape), data=data)
    if isinstance(value, np.ndarray | np.generic):
        values = np.asarray(value)
        words = repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
        return Array(str(values.dtype), values.shape, data=words)
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)


def _read_json(path: Path) -> Leaves:
    return _flatten(json.loads(path.read_text()))


def _read_yaml(path: Path) -> Leaves:
    return _flatten(yaml.safe_load(path.read_text()))


def _read_series(path: Path) -> Leaves:
    """Yield each metric as one array of [step, value] as they are written."""
    series: dict[str, list[list[Scalar]]] = defaultdict(list)
    for line in map(json.loads, path.read_text().splitlines()):
        step = line.pop("step")
        for name, value in line.items():
            series[name].append([step, value])
    for name, points in series.items():
        yield name, Array("series", (len(points),), data=json.dumps(points).encode())


def _read_hdf5(path: Path) -> Leaves:
    found: list[tuple[str, Array | Scalar]] = []

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((name, _leaf(item[()])))
        found.extend((f"{name}@{key}", _leaf(value)) for key, value in item.attrs.items())

    with h5py.File(path, "r", locking=False) as file:
        note("", file)
        file.visititems(note)
    return iter(found)


def _read_npz(path: Path) -> Leaves:
    with np.load(path) as stored:
        yield from _flatten(dict(stored))


def _read_npy(path: Path) -> Leaves:
    yield "", _leaf(np.load(path))


def _read_torch(path: Path) -> Leaves:
    return _flatten(torch.load(path, map_location="cpu", weights_only=True))


def _read_safetensors(path: Path) -> Leaves:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  the file is no container
            yield name, _leaf(file.get_tensor(name))
        for name, text in (file.metadata() or {}).items():
            yield from _flatten(_parsed(text), f"metadata.{name}")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


READERS: dict[str, Callable[[Path], Leaves]] = {
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".jsonl": _read_series,
    ".h5": _read_hdf5,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_torch,
    ".safetensors": _read_safetensors,
}


# --- running -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkout:
    """A folder with dwf's sources."""

    path: Path
    commit: str
    is_clean: bool
    """Whether it is as committed."""

    @classmethod
    def at(cls, path: Path) -> "Checkout":
        """Look at a folder; end with a message where it is no checkout, or another dwf runs."""
        path = path.resolve()
        told = _git(path, "rev-parse", "--short=12", "HEAD")
        if told is None or not (path / "launch").is_dir():
            sys.exit(f"{path}: expected a git checkout of dwf")
        checkout = cls(path, told.strip(), not (_git(path, "status", "--porcelain") or "").strip())
        words = [sys.executable, "-c", "import dwf; print(dwf.__file__)"]
        ran = subprocess.run(words, cwd=path, env=checkout.environment, capture_output=True)
        if not Path(ran.stdout.decode().strip()).is_relative_to(path):
            sys.exit(f"{path}: this Python imports dwf from {ran.stdout.decode().strip()!r}")
        return checkout

    @property
    def environment(self) -> dict[str, str]:
        """What its commands run in: its own sources, one thread, no GPU."""
        own = {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {k: v for k, v in os.environ.items() if k != "DWF_CLUSTER"} | own

    @property
    def name(self) -> str:
        """Name of the folder of its results."""
        return self.commit if self.is_clean else f"{self.commit}-changed"


def _git(path: Path, *words: str) -> str | None:
    ran = subprocess.run(["git", "-C", str(path), *words], capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else None


def run_case(checkout: Checkout, results: Path, case: str) -> str | None:
    """Give the commands of a case in a checkout, or take what is kept; `results/CASE` is the root.

    Of two comparisons at once the second waits, and takes what the first has made.

    Returns:
        None, or in words which command failed.
    """
    results.mkdir(parents=True, exist_ok=True)
    record = results / f"{case}.json"
    made_by = {"commands": list(CASES[case]), "versions": _versions()}
    with open(results / f"{case}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if checkout.is_clean and _is_kept(record, made_by):
            _say(f"{results.name}: {case} is kept")
            return None
        for old in (record, results / f"{case}.log"):
            old.unlink(missing_ok=True)
        shutil.rmtree(results / case, ignore_errors=True)
        (results / case).mkdir()
        took = []
        for command in CASES[case]:
            seconds = _give(checkout, command, results / case, results / f"{case}.log")
            if seconds is None:
                return f"FAILED in {results.name}: {command.split()[0]}, see {case}.log there"
            _say(f"{results.name}: {case}: {seconds[0]} s, CPU {seconds[1]} s: {command}")
            took.append(seconds)
        told = made_by | {"wall_and_cpu_seconds": took}
        record.write_text(json.dumps(told, indent=1) + "\n")
    return None


def _is_kept(record: Path, made_by: dict[str, object]) -> bool:
    if not record.exists():
        return False
    kept = json.loads(record.read_text())
    return all(kept.get(key) == value for key, value in made_by.items())


def _give(checkout: Checkout, command: str, root: Path, log: Path) -> tuple[float, float] | None:
    """Run a command; return its seconds of wall and CPU, or None where it failed."""
    words = [sys.executable, *shlex.split(f"launch/{command}"), "--root", str(root)]
    began = time.monotonic(), _cpu_seconds()
    with open(log, "a") as output:
        output.write(f"$ {shlex.join(words)}\n")
        output.flush()
        ran = subprocess.run(
            words, cwd=checkout.path, env=checkout.environment, stdout=output, stderr=output
        )
    if ran.returncode:
        _say(f"{checkout.path}: exit {ran.returncode}: {command}\n{_tail(log)}")
        return None
    return round(time.monotonic() - began[0], 1), round(_cpu_seconds() - began[1], 1)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-5:])


def _versions() -> dict[str, str]:
    """What the numbers may depend on beside the sources."""
    packages = ("torch", "numpy", "scipy", "torchdiffeq", "scikit-learn")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compare_case(
    case: str, sides: Sequence[tuple[Checkout, Path]], allow: Sequence[str]
) -> tuple[list[Row], Counter[str]]:
    """Run a case in both checkouts, each with the folder of its results, and compare."""
    for checkout, results in sides:
        if failed := run_case(checkout, results, case=case):
            return [
                Row(case, "-", files=0, bytes=0, result=failed, differences=(failed,))
            ], Counter()
    old, new = (results / case for _, results in sides)
    return compare_roots(case, old, new=new, allow=allow)


# --- telling -----------------------------------------------------------------------------------


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows as a Markdown table, then each difference by name."""
    print("case | part | files | bytes | result")
    print("---|---|---:|---:|---")
    for row in rows:
        print(f"{row.case} | {row.part} | {row.files} | {row.bytes:,} | {row.result}")
    for row in rows:
        for text in row.differences[:MOST_TOLD]:
            print(f"\n{row.case}, {row.part}: {text}", end="")
        if len(row.differences) > MOST_TOLD:
            print(f"\n{row.case}, {row.part}: and {len(row.differences) - MOST_TOLD} more", end="")
    print()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="checkout before")
    parser.add_argument("new", type=Path, help="checkout after")
    default = Path(tempfile.gettempdir()) / "dwf-compare-checkouts"
    parser.add_argument("--work", type=Path, default=default, help=f"results; default: {default}")
    usual = [case for case in CASES if case not in SLOW]
    words = f"cases, of {', '.join(CASES)}; default: {','.join(usual)}"
    parser.add_argument("--only", type=lambda text: text.split(","), default=usual, help=words)
    words = "pattern of FILE:KEY that may differ, as '*:provenance.digest'; may be given again"
    parser.add_argument("--allow", action="append", default=[], help=words)
    options = parser.parse_args()
    if unknown := [case for case in options.only if case not in CASES]:
        parser.error(f"--only {','.join(unknown)}: the cases are {', '.join(CASES)}")
    return options


def main() -> None:
    """Run both, compare, print; exit with 1 where anything differs."""
    options = _options()
    old, new = Checkout.at(options.old), Checkout.at(options.new)
    again = "-again" if new.name == old.name else ""
    work = options.work.resolve()
    sides = (old, work / old.name), (new, work / f"{new.name}{again}")
    began, rows, left_out = time.monotonic(), [], Counter[str]()
    for case in options.only:
        found, others = compare_case(case, sides, allow=options.allow)
        rows, left_out = rows + found, left_out + others
    print_table(rows)
    unequal = sum(bool(row.differences) for row in rows)
    names = ", ".join(sorted(left_out))
    print(f"\nold: {old.path} at {sides[0][1].name}; new: {new.path} at {sides[1][1].name}")
    print(f"not compared (of host, time and looks): {names}")
    print(
        f"{len(rows) - unequal} of {len(rows)} parts are equal; "
        f"{time.monotonic() - began:.0f} s, one thread, {platform.machine()}"
    )
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    main()
