"""From the files of all units to the report of a fine-tuning.

Shape suffixes: E epochs recorded, L looks, N networks of an arm, M test images, K classes,
D numbers of one network.
"""

import numpy as np
import torch

from dwf.evaluation.measure import vote_accuracy
from dwf.files import reading_arrays
from dwf.flags import name_and_root
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import batchnorm_buffers, build_network, score_networks
from dwf.randomness import threads
from dwf.settings import to_dict
from dwf.transfer.report import ArmResult, TransferReport
from dwf.transfer.unit import PARTS, Job, look_steps, unit_file
from dwf.zoo.shard import Columns

_ACCURACIES = (*(f"{part}_EN" for part in PARTS), "looks_LN", "diverged_N")


def assemble(job: Job) -> TransferReport:
    """Return the report of a fine-tuning all of whose units are whole."""
    with threads(1):  # the last bits of soups depend on it
        arms = tuple(_arm(job, place) for place in range(len(job.starts.arms)))
    config, target = job.config, job.target
    return TransferReport(
        name=name_and_root(job.folder, "finetunes")[0],
        config=to_dict(config),
        epochs=config.recorded,
        steps=tuple(look_steps(config, target)),
        steps_per_epoch=target.steps_per_epoch,
        reach=config.reach if config.reach is not None else _from_scratch(arms),
        frozen=target.frozen,
        head=target.head.names if target.head else (),
        arms=arms,
    )


def _from_scratch(arms: tuple[ArmResult, ...]) -> float | None:
    """Mean validation accuracy of the arm `random` after the last epoch."""
    return next((float(arm.val_EN[-1].mean()) for arm in arms if arm.family == "random"), None)


def _arm(job: Job, place: int) -> ArmResult:
    arm, parts = job.starts.arms[place], _parts(job, place)
    found = {name: np.concatenate([part[name] for part in parts], -1) for name in _ACCURACIES}
    ensemble_E: tuple[float, ...] = ()
    soup_E: tuple[float, ...] = ()
    if arm.count >= job.config.members:
        voting = [part for part in parts if part["votes_EMK"].size]
        votes_EMK = sum(part["votes_EMK"] for part in voting)
        test = job.target.data.test
        labels_M = test.labels[test.index].numpy()
        ensemble_E = tuple(vote_accuracy(votes_MK, labels_M) for votes_MK in votes_EMK)
        mean_ED = sum(part["sum_ED"] for part in voting) / job.config.members
        soup_E = tuple(_soup(job, mean_ED.astype(np.float32)).tolist())
    return ArmResult(arm.family, arm.title, **found, ensemble_E=ensemble_E, soup_E=soup_E)


def _parts(job: Job, place: int) -> list[Columns]:
    """Return what each unit of an arm left, in the order of its networks."""
    parts = []
    for index, unit in enumerate(job.starts.units):
        if unit.arm == place:
            file = unit_file(job.folder, index)
            with reading_arrays(file), np.load(file, allow_pickle=False) as held:
                parts.append({name: held[name] for name in held.files})
    return parts


def _soup(job: Job, weights_ED: np.ndarray) -> np.ndarray:
    """Return the test accuracies of networks of mean weights, float64_E.

    BatchNorm's statistics are measured on the new task's training images.
    """
    data, device = job.target.data, job.starts.method.device
    network = build_network(job.target.config.network).to(device)
    state = job.layout.unflatten(torch.from_numpy(weights_ED))
    if batchnorm_buffers(network):
        num = min(job.config.batchnorm_images, len(data.train))
        state = recalibrate(network, state, data=data, num_images=num, device=device)
    scores = score_networks(network, state, data=data, part=data.test, device=device)
    return scores.accuracy_N
