"""Look after zoos: how far they are, what they are, whether they are damaged; put them together.

Each command tells by its exit code whether all is well (0) or something is missing or damaged (1).
`verify` and `statistics` share the work where they are started as several ranks:
`mpiexec -n 4 dwf verify zoos/mnist_mlp`.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from dwf.arguments import POSITIONAL, Argument
from dwf.errors import ConfigError
from dwf.flags import words_naming
from dwf.jobs import Living, nobody_tells
from dwf.metrics import Progress, print_table
from dwf.names import folder_said, refuse_no_name
from dwf.plain import Json
from dwf.ranks import world
from dwf.settings import Count
from dwf.zoo.facts import Facts
from dwf.zoo.manifest import grown_by, read_manifest, zoos_named
from dwf.zoo.provenance import Aligned, Merged, Sampled, Trained
from dwf.zoo.store import Zoo, finish_zoo
from dwf.zoo.view import NAME

if TYPE_CHECKING:
    from dwf.zoo.status import Status
    from dwf.zoo.verify import Damage

_SEVERAL = Argument(metavar="FOLDER [FOLDER ...]")
Folders = Annotated[tuple[Path, ...], POSITIONAL, _SEVERAL]
Folder = Annotated[Path, Argument(is_positional=True, metavar="FOLDER")]

_LINES = 20
_MIB = 2**20
_MOST_DIGITS = 19  # of 64 bits


def status(folders: Sequence[Path], living: Living = nobody_tells) -> int:
    """How far zoos are: shards whole, in work, missing; who works on them. Reads no weights.

    Args:
        folders: the zoos.
        living: asks Slurm.
    """
    from dwf.zoo.status import Status, read_status

    found: list[Status] = [read_status(folder, living) for folder in _some(folders)]
    head = ["zoo", "whole", "begun", "missing", "damaged", "networks", "rows", "diverged"]
    rows = [
        [str(one.folder), f"{len(one.whole)} of {one.num_shards}"]
        + [str(len(each)) for each in (one.begun, one.missing, one.damaged)]
        + [str(number) for number in (one.num_networks, one.num_rows, one.num_diverged)]
        for one in found
    ]
    print_table(head, rows)
    for one in found:
        for line in _details(one):
            print(line)
    return int(not all(one.is_whole for one in found))


def _details(one: "Status") -> Iterator[str]:
    where = f"{one.folder}:"
    if one.holder:
        yield f"{where} worked on by {one.holder}"
    yield from _short(
        f"{where} shard {index} {'is' if one.holder or index in one.to_come else 'was left'} at "
        f"{100 * told['share']:.0f} %{_accuracy(told)}"
        for index, told in one.begun.items()
    )
    yield from _short(f"{where} shard {i} is damaged: {why}" for i, why in one.damaged.items())
    yield from _short(f"{where} shard {i} cannot be read: {w}" for i, w in one.unread.items())
    if made := [index for index in one.missing if index in one.to_come]:
        yield f"{where} shards that its job is to make: {_in_short(made)}"
    if missing := [index for index in one.missing if index not in one.to_come]:
        yield f"{where} missing shards: {_in_short(missing)}"
    if len(one.whole) == one.num_shards and not one.has_view:
        yield f"{where} all shards are whole, {NAME} is still to be written"
    if one.jobs and not one.is_whole:
        yield f"{where} {one.jobs.words}"
    if one.leftovers:
        may_work = one.holder or (one.jobs and one.jobs.state != "ended")
        whose = "of attempts in work or killed" if may_work else "of attempts that were killed"
        yield f"{where} {len(one.leftovers)} partial files {whose}, first {one.leftovers[0].name}"
    if not one.is_whole and not one.holder:
        yield f"{where} go on with: {_command_that_made(one.folder)}"


def _accuracy(told: dict[str, Json]) -> str:
    value = told.get("val_accuracy")
    return "" if value is None else f", val accuracy {100 * value:.2f} %"


def info(folder: Folder, as_json: Annotated[bool, Argument(name="json")] = False) -> int:
    """Describe a zoo: network, data, recipe, layout, accuracies, where it came from.

    Args:
        folder: the zoo, or a manifest: then each of its zoos.
        as_json: print it as JSON.
    """
    return world().on_first(_print_info, folder, as_json)


def _print_info(folder: Path, as_json: bool) -> int:
    from dwf.zoo.info import zoo_facts

    folders = _zoos_of(folder)
    if as_json:
        every = {each.name: zoo_facts(each) for each in folders}
        print(json.dumps(every if read_manifest(folder) else every[folder.name], indent=1))
        return 0
    for each in folders:
        _print_facts(zoo_facts(each))
    return 0


def _print_facts(told: dict[str, Json]) -> None:
    from dwf.settings import flatten

    layout, splits = told.pop("layout"), told.pop("splits")
    told |= {"layout": {key: layout[key] for key in ("digest", "weights")}}
    told["bytes"] = f"{told['bytes']:,} ({told['bytes'] / _MIB:,.1f} MiB)"
    print_table(["", ""], [[key, str(value)] for key, value in flatten(told).items()])
    entries = [[e["name"], str(e["shape"]), e["role"]] for e in layout["tensors"]]
    print_table(["tensor", "shape", "role"], entries)
    scores = [
        [split, str(one["networks"])]
        + [_spread(one.get(f"{p}_accuracy")) for p in ("train", "val")]
        for split, one in splits.items()
    ]
    print_table(["networks", "count", "accuracy on train images", "on val images"], scores)


def _spread(one: dict[str, float] | None) -> str:
    return f"{100 * one['mean']:.2f} +- {100 * one['std']:.2f} %" if one else ""


def verify(folders: Folders, threads: Count | None = None, *, mend: bool = False) -> int:
    """Hold every byte of zoos to its checksum; name every damaged file and the cure.

    A file that cannot be opened or read is told with the system's reason, and is to stay.

    Args:
        folders: the zoos.
        threads: of each process; default: one a core, or one where there are several MPI ranks.
        mend: write a zoo's view `zoo.h5` anew where that alone is damaged.
    """
    from dwf.zoo.verify import find_damage

    if threads is not None and threads < 1:
        raise ConfigError(f"--threads = {threads}: allowed is at least 1")
    is_damaged = False
    for folder in _some(folders):
        num = world().on_first(_num_shards, folder)
        with _progress(f"verify {folder.name}", num, "shards") as report:
            damages = find_damage(folder, threads, report=report)
        if mend and _is_view_alone(damages):
            world().on_first(_write_view, folder)
            damages = []
        is_damaged |= bool(damages)
        if world().is_first:
            _tell(folder, num, damages)
    return int(is_damaged)


def _num_shards(folder: Path) -> int:
    return Facts.read(folder).num_shards


def _write_view(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)
    finish_zoo(folder)
    print(f"{folder / NAME} is written anew")


def _tell(folder: Path, num_shards: int, damages: "Sequence[Damage]") -> None:
    if not damages:
        print(f"{folder}: {num_shards} shards are whole")
        return
    for damage in damages:
        print(f"{damage.file}: {damage.reason}")
    unread = [damage.file for damage in damages if not damage.is_readable]
    if unread:
        print(f"{folder}: {len(unread)} could not be read and may be sound: leave them there")
    wrong = [damage.file for damage in damages if damage.is_readable]
    if _is_view_alone(damages):
        print(f"{folder}: mend it with: dwf verify --mend {shlex.quote(str(folder))}")
    elif wrong:
        there = [str(file) for file in wrong if file.exists()]
        remove = f"rm {shlex.join(there)} && " if there else ""
        print(f"{folder}: {len(wrong)} to mend with: {remove}{_command_that_made(folder)}")


def _is_view_alone(damages: "Sequence[Damage]") -> bool:
    """Whether the view is all that is wrong, and was seen to be."""
    return [damage.file.name for damage in damages] == [NAME] and damages[0].is_readable


def statistics(
    folder: Folder,
    split: Literal["train", "val", "test", "all"] = "train",
    *,
    epoch: Annotated[str, Argument(metavar="last|all|INT")] = "last",
    as_json: Annotated[bool, Argument(name="json")] = False,
) -> int:
    """Mean, spread, range and norm of each tensor over the networks of a zoo.

    Args:
        folder: the zoo.
        split: the networks measured.
        epoch: which of a network's rows: `last`, `all`, or a number.
        as_json: print them as JSON.
    """
    from dwf.zoo.tensor_statistics import measure_tensors

    is_number = epoch.isdecimal() and len(epoch) < _MOST_DIGITS
    if epoch not in ("last", "all") and not is_number:
        raise ConfigError(f"--epoch = {epoch!r}: allowed is last, all or a number")
    folder = folder_said(folder, "zoos")
    world().on_first(lambda: len(Zoo.open(folder)))  # what is wrong with it is said once
    zoo = Zoo.open(folder)
    at = {"all": None, "last": "last"}[epoch] if epoch in ("all", "last") else int(epoch)
    rows = zoo.rows(None if split == "all" else split, at)
    with _progress(f"measure {zoo.name}", len(rows), "rows") as report:
        measured = measure_tensors(zoo, rows, report=report)
    if not world().is_first:
        return 0
    names = ("mean", "std", "low", "high", "mean_norm")
    told = {n: {name: getattr(one, name) for name in names} for n, one in measured.items()}
    if as_json:
        print(json.dumps(told, indent=1))
        return 0
    print(f"{zoo.path}: {len(rows)} rows, split {split}, epoch {epoch}")
    table = [[n, *(f"{one[name]:.6g}" for name in names)] for n, one in told.items()]
    print_table(["tensor", "mean", "std", "min", "max", "mean norm"], table)
    return 0


def merge(folder: Folder, sources: Folders) -> int:
    """Write zoos of one network and one dataset as one new zoo; the given ones stay.

    Args:
        folder: the new zoo.
        sources: the zoos to put together, two or more.
    """
    return world().on_first(_merge, folder, sources)


def _merge(folder: Path, sources: Sequence[Path]) -> int:
    from dwf.zoo.merge import merge_zoos

    refuse_no_name(Path(os.path.abspath(folder)).name, "name of the new zoo")
    sources = [folder_said(source, "zoos") for source in sources]
    total = sum(len(Zoo.open(source)) for source in sources)
    with _progress(f"merge into {folder.name}", total, "rows") as report:
        zoo = merge_zoos(folder, sources, report=report)
    print(f"{len(zoo)} rows of {len(sources)} zoos in {zoo.path}")
    return 0


# --- for a person ------------------------------------------------------------------------------


def _some(folders: Sequence[Path]) -> Sequence[Path]:
    if not folders:
        raise ConfigError("no zoo was given: expected one folder or more, as zoos/mnist_mlp")
    named = [each for folder in folders for each in _zoos_of(folder)]
    return list(dict.fromkeys(one for each in named for one in _and_grown(each)))


def _zoos_of(folder: Path) -> list[Path]:
    """Return the folders of the zoos that one stands for: of a manifest its zoos."""
    folder = folder_said(folder, "zoos")
    if not folder.name:  # the root of all folders, which whoever reads it refuses
        return [folder]
    return [folder.with_name(name) for name in zoos_named(folder.parent, [folder.name])]


def _and_grown(folder: Path) -> list[Path]:
    """Return the folders of a zoo and of those that widen it."""
    return [folder, *grown_by(folder)]


@contextmanager
def _progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Progress on the first rank alone."""
    if not world().is_first:
        yield lambda done: None
        return
    with Progress(what, total, unit=unit) as bar:
        yield bar.update


def _short(lines: Iterator[str]) -> list[str]:
    every = list(lines)
    more = [f"  and {len(every) - _LINES} more"] if len(every) > _LINES else []
    return every[:_LINES] + more


def _in_short(numbers: list[int]) -> str:
    """`0-3, 7, 9-12`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    words = ["-".join(map(str, run)) for run in runs]
    return ", ".join(words[:_LINES]) + (", ..." if len(words) > _LINES else "")


def _command_that_made(folder: Path) -> str:
    """The command that makes what is missing of a zoo, as far as its folder tells."""
    provenance = Facts.read(folder).provenance
    if isinstance(provenance, Merged):
        beside = [str(folder.parent / zoo["name"]) for zoo in provenance.zoos]
        return f"dwf merge {shlex.join([str(folder), *beside])}"
    is_in_zoos = "zoos" in folder.absolute().parts[:-1]
    if isinstance(provenance, (Trained, Aligned, Sampled)) and is_in_zoos:
        return f"dwf {provenance.command} --resume {words_naming(folder, 'zoos')}"
    record = folder / "run" / "command.txt"
    return f"the command that made this zoo, in {record}: read it before you give it"
