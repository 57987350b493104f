"""Micro-batches of windows, cut ahead of time by processes of their own.

What a micro-batch is follows from its number alone: any number of processes gives the same bytes,
and a resumed run begins with the one that comes next.

Shape suffixes: V views, B windows of a micro-batch, W tokens of a window, C numbers of a token.
"""

import os
import signal
import threading
import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dwf.codecs.windows.sampler import WindowBatch, WindowSampler
from dwf.training.task import Share

_WORKERS_BESIDE_A_GPU = 4
_AHEAD = 4  # micro-batches that each process has ready
_SECONDS_TO_SAVE = 10.0
_NAMES = ("source_B", "row_B")

NamedTensors = dict[str, torch.Tensor | int | None]
"""A `WindowBatch` by the names of its fields, see `tensors_of`."""


class _MicroBatches(Dataset):
    """Item i is micro-batch `i % accumulate` of update `i // accumulate`, of this rank."""

    def __init__(self, sampler: WindowSampler, share: Share):
        self.sampler, self.share = sampler, share

    def __getitem__(self, index: int) -> NamedTensors:
        step, micro_step = divmod(index, self.share.accumulate)
        start, stop = self.share.examples(micro_step)
        batch = self.sampler.batch(step, self.share.batch_size, start=start, stop=stop)
        return tensors_of(batch)


def tensors_of(batch: WindowBatch) -> NamedTensors:
    """Return a `WindowBatch` by the names of its fields, and `valid_BW`: which tokens are real.

    That is None where all are: then attention needs no mask.
    """
    tensors = dict(vars(batch))
    valid_BW = batch.mask_BWC.any(2)
    return tensors | {"valid_BW": None if valid_BW.all() else valid_BW}


def _as_it_is(item: NamedTensors) -> NamedTensors:
    return item


def _heed_parent(_: int) -> None:
    """Let a process that loads end on SIGTERM by its parent alone.

    Who stops a job tells all of its processes at once, and the one that trains has a checkpoint to
    save first.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    try:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
    except AttributeError:  # macOS does not tell who sends a signal: leave time for the checkpoint
        signal.sigwait({signal.SIGTERM})
        time.sleep(_SECONDS_TO_SAVE)
    os._exit(0)


class WindowLoader:
    """Gives a rank its micro-batches in order; counts the time that it is waited for.

    Args:
        sampler: cuts them.
        share: which examples of a batch are this rank's.
        first_step: the update it begins with.
        steps: the update before which it ends.
        workers: processes; None: 4 beside a GPU, else none but the caller's.
        device: that they go to.
    """

    def __init__(
        self,
        sampler: WindowSampler,
        share: Share,
        *,
        first_step: int,
        steps: int,
        workers: int | None,
        device: torch.device,
    ):
        on_gpu = device.type == "cuda"
        if workers is None:
            workers = _WORKERS_BESIDE_A_GPU if on_gpu else 0
        # Forked: mapped shards are neither copied nor opened again.
        several: dict[str, Any] = {}
        if workers:
            several = {"prefetch_factor": _AHEAD, "multiprocessing_context": "fork"}
            several["worker_init_fn"] = _heed_parent
        numbers = range(first_step * share.accumulate, steps * share.accumulate)
        self.device, self.seconds_waited = device, 0.0
        self._batches = iter(
            DataLoader(
                _MicroBatches(sampler, share),
                batch_size=None,
                sampler=numbers,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=on_gpu,
                generator=torch.Generator(),  # else it draws from torch's own, as dropout does
                **several,
            )
        )

    def next(self) -> NamedTensors:
        """Return the next micro-batch by names, its tensors on the device."""
        begun = time.perf_counter()
        batch = next(self._batches)
        self.seconds_waited += time.perf_counter() - begun
        return to_device(batch, self.device)


def to_device(batch: NamedTensors, device: torch.device) -> NamedTensors:
    """Return a micro-batch with its tensors on a device; what names its networks stays here."""
    moved = {
        name: value.to(device, non_blocking=True)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor) and name not in _NAMES
    }
    return batch | moved
