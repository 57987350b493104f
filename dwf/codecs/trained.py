"""Codecs that train a module, on any engine, and what that takes."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from dwf.codecs.codec import Codec
from dwf.codecs.config import CodecSettings
from dwf.compute import Gpus
from dwf.errors import ConfigError, TooLarge
from dwf.randomness import seed_of
from dwf.ranks import world
from dwf.run_folder import RunPart, replacing
from dwf.training.config import LoopConfig
from dwf.training.forecast import describe_training, refuse_no_room
from dwf.training.loop import train as train_module
from dwf.training.task import Share, Task
from dwf.zoo.checksums import file_checksum
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Source, Sources

MODULE = "codec.safetensors"
_BATCH_ALONE, _RATE_ALONE = 4, 1e-3
_ALONE = {
    "accumulate": 1,
    "sample_every": 0,
    "sample_count": LoopConfig.sample_count,
    "engine": "plain",
    "optimizer": "adamw",
    "matrix_rate": LoopConfig.matrix_rate,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "step_size": None,
    "gamma": LoopConfig.gamma,
    "warm_up": 0,
    "clip_norm": 1.0,
    "ema": None,
    "keep": "last",
}
"""Training of a module on one network, whatever that of the codec is."""


def save_module(
    module: nn.Module, folder: Path, *, about: dict[str, str] | None = None
) -> np.ndarray:
    """Write a module's numbers to a codec's folder; return the file's checksum for its arrays.

    Args:
        module: in any place.
        folder: of the codec.
        about: words to keep beside them; of at most one key, as several have no fixed order.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    with replacing(folder / MODULE) as partial:
        # `save_file` would write beside it first, and a kill would leave what it wrote.
        partial.write_bytes(save(state, about))
    return np.array(file_checksum(folder / MODULE))


def load_module(folder: Path, checksum: int) -> dict[str, torch.Tensor]:
    """Return what `save_module` wrote; raises `ValueError` where the checksum is another."""
    if file_checksum(folder / MODULE) != checksum:
        raise ValueError(f"{MODULE} does not match its checksum")
    return load_file(folder / MODULE)


class TrainedCodec(Codec):
    """Base of codecs that train; their settings have `training`.

    A kind gives `planned_module`, `_new_module` and `_task`; `activation_bytes` and
    `how_to_save_activations` where it knows how its memory grows.
    """

    module: nn.Module
    """The module that is trained."""

    @classmethod
    def planned_module(cls, config: CodecSettings, layouts: Sequence[Layout]) -> nn.Module:
        """Return the module without memory (on the device `meta`), to count and measure.

        Args:
            config: its settings.
            layouts: of the zoos; may be none where the settings say all.

        Raises:
            ConfigError: its shape is not known, or does not suit the layouts.
        """
        raise NotImplementedError

    def learn_alone(self, source: Source, steps: int, *, run: RunPart, seed: int) -> "TrainedCodec":
        """Return a codec of these settings and scalings whose module, new, learnt one network.

        It learns from few examples a step, at a rate of its own, in this process: can such a module
        learn a network at all is the question, not how it is trained.

        Args:
            source: one network, of a layout that this codec was fitted to.
            steps: updates.
            run: takes the record of that training.
            seed: of initialisation and noise.

        Raises:
            TrainingDiverged, Preempted: see `train`.
        """
        training = replace(
            self.config.training,
            steps=steps,
            validate_every=steps,
            batch_size=_BATCH_ALONE,
            learning_rate=_RATE_ALONE,
            **_ALONE,
        )
        alone = copy.copy(self)
        alone.config = replace(self.config, training=training)
        alone.module = self._new_module(seed_of(seed, "alone"))
        task = alone._task([source], [], seed_of(seed, "alone"))
        train_module(task, training, seed=seed, run=run, what=f"{self.config.kind} of one network")
        alone.module = task.module
        return alone

    def _new_module(self, seed: int) -> nn.Module:
        """Return the module with initial weights."""
        raise NotImplementedError

    def _task(self, train: Sources, val: Sources, seed: int) -> Task:
        """Return what `module` is to learn; scalings are known."""
        raise NotImplementedError

    def _refuse_no_room(self, train: Sources) -> None:
        """Refuse a training that this rank's device has no room for; see `refuse_no_room`."""
        training, layouts = self.config.training, [zoo.layout for zoo, _ in train]
        module = self.planned_module(self.config, layouts)
        share = Share.of_first(training, world().size)
        refuse_no_room(
            module,
            training,
            share=share,
            key="codec.training",
            activations=self.activation_bytes(self.config, module, share=share),
            hints=self.how_to_save_activations(self.config),
        )

    @classmethod
    def activation_bytes(cls, config: CodecSettings, module: nn.Module, *, share: Share) -> int:
        """Return what the backward needs of one micro-batch, in bytes; 0 where it is not known.

        Args:
            config: its settings.
            module: as `planned_module` returns it.
            share: this rank's part of a batch.

        Raises:
            ConfigError: it cannot learn from such a micro-batch.
        """
        return 0

    @classmethod
    def how_to_save_activations(cls, config: CodecSettings) -> list[str]:
        """Return flags, or words, that lower what `activation_bytes` returns."""
        return []

    @classmethod
    def describe_training(
        cls,
        config: CodecSettings,
        layouts: Sequence[Layout],
        *,
        world: int,
        gpus: Gpus | None = None,
    ) -> str:
        """Return in words what trains it, and what that takes on each GPU.

        Args:
            config: its settings.
            layouts: of the zoos that are known.
            world: ranks, one for each GPU.
            gpus: those of the site that it is planned for; None: of this machine.

        Raises:
            ConfigError: the settings of DeepSpeed are wrong, or the batch cannot be shared by so
                many.
        """
        try:
            module = cls.planned_module(config, layouts)
        except TooLarge:
            raise
        except ConfigError as error:
            return f"{config.kind}: parameters and memory are not known yet: {error}"
        training = config.training
        share = Share(0, world, batch_size=training.batch_size, accumulate=training.accumulate)
        activations = cls.activation_bytes(config, module, share=share)
        hints = cls.how_to_save_activations(config)
        return f"{config.kind}: " + describe_training(
            module,
            training,
            share=share,
            key="codec.training",
            activations=activations,
            hints=hints,
            gpus=gpus,
        )
