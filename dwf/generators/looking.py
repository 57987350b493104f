"""Networks looked at while a codec or a density learns: drawn, and scored on validation images."""

from collections.abc import Callable
from typing import TypeVar

import torch

from dwf.codecs.codec import Codec
from dwf.generators.config import BATCHNORM_IMAGES
from dwf.generators.examiner import Examiner
from dwf.generators.learning import Learning
from dwf.ranks import world
from dwf.run_folder import RunFolder
from dwf.training.config import LoopConfig
from dwf.zoo.facts import Subject
from dwf.zoo.layout import Layout

T = TypeVar("T")


def judge_of(
    subject: Subject,
    layout: Layout,
    *,
    training: LoopConfig,
    key: str,
    decode: Callable[[T], torch.Tensor],
) -> Callable[[T], dict[str, float]]:
    """Return what scores drawn networks on validation images: the first rank does, for all.

    Args:
        subject: the networks' architecture and data.
        layout: their layout.
        training: how that learns which draws them.
        key: where its settings stand, for an error.
        decode: makes weights [B, D] of what is drawn.

    Raises:
        ConfigError: no validation images are held out.
    """
    ours = world()
    examiners: list[Examiner] = []

    def prepare() -> None:  # at once: that there are no such images is told before the training
        examiners.append(
            Examiner(
                subject,
                layout,
                batchnorm_images=BATCHNORM_IMAGES,
                wanted_by=f"{key}.sample_every = {training.sample_every} scores samples on",
            )
        )

    # All `training.sample_count` networks of a look are drawn and decoded at once.
    def judge(drawn: T) -> dict[str, float]:
        return ours.on_first(lambda: examiners[0].summary(decode(drawn)))

    ours.on_first(prepare)
    return judge


def fit_codec(
    codec: Codec, learning: Learning, *, subject: Subject, run: RunFolder, seed: int
) -> None:
    """Fit a codec; one that draws networks while it learns is told how good they are.

    Args:
        codec: not fitted yet.
        learning: what it learns from.
        subject: architecture and data of its first zoo.
        run: takes what it writes.
        seed: of a codec that trains.

    Raises:
        TooFewNetworks, ShapeMismatch, CorruptShard: see `Codec.fit`.
    """
    given, training = {}, codec.config.training
    if codec.config.looks_at_samples:
        layout = learning.train[0][0].layout
        given["judge"] = judge_of(
            subject,
            layout,
            training=training,
            key="codec.training",
            decode=lambda codes: codec.decode(codes, layout),
        )
    codec.fit(learning.train, learning.val, run=run, seed=seed, **given)
