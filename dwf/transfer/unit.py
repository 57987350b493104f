"""A unit of work: some networks of one arm, trained, scored, and what is kept of them.

    run/work/unit-00007/        saves and snapshots of its cohorts, until it is whole
    run/work/unit-00007.npz     accuracies of its networks, sums of its members

Shape suffixes: E epochs recorded, L looks, N networks of the unit, M test images, K classes,
D numbers of one network.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.files import read_array, read_json, reading_arrays
from dwf.flags import name_and_root
from dwf.networks.functional import build_network, score_networks
from dwf.randomness import threads
from dwf.run_folder import replacing
from dwf.settings import build
from dwf.transfer.arms import Arm
from dwf.transfer.config import FinetuneConfig
from dwf.transfer.report import FILE as REPORT
from dwf.transfer.starts import FILE, StartReader, Starts
from dwf.transfer.target import Target, find_target
from dwf.yaml_files import read_mapping
from dwf.zoo.cohorts import Cohort, Start
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.progress import reporter
from dwf.zoo.shard import Columns

NOISE_UNIT = "noise_unit.npy"
PARTS = ("train", "val", "test")


def finetune_unit(folder: Path, index: int) -> None:
    """Train one unit of the fine-tuning in `folder`; idempotent, resumes what was left."""
    target_file = unit_file(folder, index)
    if target_file.exists():
        return
    job = Job.read(folder)
    unit = job.starts.units[index]
    arm = job.starts.arms[unit.arm]
    with threads(1):  # the bytes depend on it
        begun = work_folder(folder) / target_file.stem
        cohorts = list(job.cohorts(arm, unit.networks, folder=begun))
        for done, cohort in enumerate(cohorts):
            if not cohort.done_path.exists():
                file = work_folder(folder) / f"progress-{index:05d}.json"
                cohort.train(reporter(file, done, total=len(cohorts)))
                cohort.forget()
        found = gather(job, arm, cohorts=cohorts)
    with replacing(target_file) as partial, open(partial, "wb") as file:
        np.savez(file, **found)
    shutil.rmtree(begun, ignore_errors=True)


def work_folder(folder: Path) -> Path:
    """Return where units lie while a fine-tuning is in work."""
    return folder / "run" / "work"


def unit_file(folder: Path, index: int) -> Path:
    """Return the file that a unit leaves."""
    return work_folder(folder) / f"unit-{index:05d}.npz"


def finished_units(folder: Path) -> set[int]:
    """Return which units are whole; all where their files went into a report."""
    if (folder / REPORT).exists():
        return set(range(len(Starts.read(folder).units)))
    return {int(file.stem.split("-")[1]) for file in work_folder(folder).glob("unit-*.npz")}


@dataclass(frozen=True)
class Job:
    """A fine-tuning in work, as its folder tells."""

    folder: Path
    """Its folder, finetunes/NAME."""
    config: FinetuneConfig
    """Its settings."""
    starts: Starts
    """Networks that its arms begin from."""
    target: Target
    """Its task."""

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Return what the folder of a fine-tuning says.

        Raises:
            ConfigError: it was begun with a GPU, and there is none here.
        """
        file = folder / "run" / "config.yaml"
        config = build(FinetuneConfig, read_mapping(file), source=str(file))
        starts = Starts.read(folder)
        if starts.method.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"{folder / FILE} says method.device = cuda, and this machine shows no GPU: go on "
                "where there is one, or begin anew under another --name with --compute.device cpu"
            )
        facts = Facts.read(_root(folder) / "zoos" / config.zoo)
        return cls(folder, config, starts, find_target(config, facts))

    @cached_property
    def layout(self) -> Layout:
        """Layout of the networks that are trained."""
        return Layout.of(build_network(self.target.config.network))

    def cohorts(self, arm: Arm, networks: range, *, folder: Path) -> Iterator[Cohort]:
        """Yield the cohorts of a unit."""
        file, size = work_folder(self.folder) / NOISE_UNIT, self.starts.method.cohort
        unit_D = read_array(file) if arm.noise else None
        reader = StartReader(self.config, _root(self.folder), self.target, unit_D)
        for start in range(0, len(networks), size):
            some = networks[start : start + size]
            begin = Start(
                reader.read(arm, some), self.target.frozen, look_every=self.config.look_every
            )
            yield Cohort(
                self.target.config,
                some,
                data=self.target.data,
                folder=folder,
                method=self.starts.method,
                start=begin,
            )


def look_steps(config: FinetuneConfig, target: Target) -> list[int]:
    """Return the steps after which accuracies on validation images are known, in order."""
    every = config.look_every or target.steps_per_epoch
    between = range(0, target.num_steps + 1, every)
    ends = range(0, target.num_steps + 1, target.steps_per_epoch)
    return sorted({*between, *ends})


def gather(job: Job, arm: Arm, *, cohorts: list[Cohort]) -> Columns:
    """Return the numbers of a unit's networks.

    A network that diverged answers nothing: its accuracy is 0 from then on, and so is that of an
    ensemble or a soup with it.

    Returns:
        `network_N`, `diverged_N` (the step, or -1), `train_EN`, `val_EN`, `test_EN` (accuracies),
        `looks_LN`, and of the members among them `votes_EMK` (sum of their logits) and `sum_ED`
        (of their weights), float64; empty where there is none.
    """
    steps, epochs = look_steps(job.config, job.target), job.config.recorded
    members = job.config.members if arm.count >= job.config.members else 0
    parts = [_of_cohort(job, cohort, steps, members) for cohort in cohorts]
    found: Columns = {
        "network_N": np.zeros(0, np.int64),
        "diverged_N": np.zeros(0, np.int64),
        "looks_LN": np.zeros((len(steps), 0)),
    }
    found |= {f"{part}_EN": np.zeros((len(epochs), 0)) for part in PARTS}
    for name, empty in found.items():
        found[name] = np.concatenate([empty, *(part[name] for part in parts)], -1)
    for name in ("votes_EMK", "sum_ED"):
        there = [part[name] for part in parts if name in part]
        found[name] = sum(there[1:], there[0]) if there else np.zeros(0)
    return found


def _of_cohort(job: Job, cohort: Cohort, steps: list[int], members: int) -> Columns:
    told, num = read_json(cohort.done_path, keys=("diverged", "looks")), len(cohort.networks)
    first, epochs = int(cohort.networks.min()), job.config.recorded
    found: Columns = {"network_N": first + np.arange(num), "diverged_N": np.full(num, -1)}
    for network, step, _ in told["diverged"]:
        found["diverged_N"][network - first] = step
    looks = dict(told["looks"])
    found["looks_LN"] = np.stack([looks.get(step, np.zeros(num)) for step in steps])
    found |= {f"{part}_EN": np.zeros((len(epochs), num)) for part in PARTS}
    voters = slice(0, max(0, min(num, members - first)))
    votes, sums = [], []
    for e, epoch in enumerate(epochs):
        file = cohort.snapshot_path(epoch)
        weights_ND = np.full((num, job.layout.size), np.nan, np.float32)
        if file.exists():  # else all have diverged
            with reading_arrays(file), np.load(file, allow_pickle=False) as held:
                for part in PARTS:
                    found[f"{part}_EN"][e] = held[f"{part}_accuracy"]
                weights_ND = held["weights"]
        if voters.stop:
            votes.append(_votes(job, weights_ND[voters]))
            sums.append(weights_ND[voters].sum(0, dtype=np.float64))
    return found | ({"votes_EMK": np.stack(votes), "sum_ED": np.stack(sums)} if votes else {})


def _votes(job: Job, weights_ND: np.ndarray) -> np.ndarray:
    """Return the sum of networks' logits on test images, float64_MK."""
    data, device = job.target.data, job.starts.method.device
    scores = score_networks(
        build_network(job.target.config.network).to(device),
        job.layout.unflatten(torch.from_numpy(weights_ND)),
        data=data,
        part=data.test,
        device=device,
        voting_N=np.ones(len(weights_ND), bool),
    )
    return scores.votes_MK


def _root(folder: Path) -> Path:
    return name_and_root(folder, "finetunes")[1]
