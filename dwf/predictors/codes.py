"""Codes of a fitted generator as features: embeddings of SANE, scores on principal components.

    codec/       the codec, beside the predictor's file: the run that it comes from may be removed

Shape suffixes: N networks, E numbers of an embedding.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codec import HEAD, Codec
from dwf.codecs.embedding import pool
from dwf.errors import ConfigError, ShapeMismatch
from dwf.plain import State
from dwf.predictors.config import CodesConfig
from dwf.predictors.examples import Examples
from dwf.predictors.headed import HeadedPredictor
from dwf.predictors.heads import Table, stop_if_asked
from dwf.run_folder import RunPart
from dwf.zoo.moments import Source, Sources

FOLDER = "codec"
_NOT_OF_THE_CODEC = shutil.ignore_patterns("checkpoints", "*.partial*", "*.jsonl")


class Codes(HeadedPredictor):
    """Embeddings of networks by the codec of a generator."""

    settings = CodesConfig
    config: CodesConfig
    codec: Codec
    codec_folder: Path
    """Folder that the codec was read from."""

    def _prepare(self, train: Examples, run: RunPart) -> None:
        self.codec_folder = find_codec(self.config.generator, run.path)
        self.codec = Codec.load(self.codec_folder)

    def features(self, sources: Sources) -> Table:
        """Return the networks' embeddings, encoded block by block; see the base."""
        parts = [self._embed(source) for source in sources if len(source[1])]
        sizes = {part.shape[1] for part in parts}
        if len(sizes) > 1:
            raise ShapeMismatch(
                f"embeddings of {' and '.join(map(str, sorted(sizes)))} numbers, of networks of "
                f"several layouts, with pool = {self.config.pool!r}: set mean, which has one size"
            )
        return Table(np.concatenate(parts) if parts else np.zeros((0, self.head.num_features)))

    def _embed(self, source: Source) -> np.ndarray:
        """Return embedding_NE of networks of one zoo, float32."""
        (zoo, rows), parts = source, []
        for _, weights_BD in zoo.stream(rows):
            stop_if_asked()
            codes = self.codec.encode(torch.from_numpy(weights_BD), zoo.layout)
            pooling = self.config.pool
            numbers_BE = codes.flatten() if pooling == "none" else pool(codes, pooling)
            parts.append(numbers_BE.numpy())
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        """Write it as one file, and the codec's folder beside it."""
        kept = Path(folder) / FOLDER
        if not kept.exists():
            partial = kept.with_name(f"{FOLDER}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.codec_folder, partial, ignore=_NOT_OF_THE_CODEC)
            partial.rename(kept)
        super().save(folder)

    def _open(self, folder: Path) -> None:
        self.codec_folder = folder / FOLDER
        self.codec = Codec.load(self.codec_folder)

    def _own(self) -> State:
        return {}

    def _take_own(self, own: State) -> None:
        pass


def find_codec(generator: str, beside: Path) -> Path:
    """Return the folder of a generator's codec.

    Args:
        generator: name of its run, or its folder.
        beside: a folder within `runs`, where it is looked for by its name.

    Raises:
        ConfigError: no run of that name has a codec.
    """
    homes = [folder for folder in beside.absolute().parents if folder.name == "runs"]
    tried = [Path(generator), *(home / generator for home in homes)]
    for run in tried:
        if (run / FOLDER / HEAD).exists():
            return run / FOLDER
    name = Path(generator).name if Path(generator).is_absolute() else generator
    raise ConfigError(
        f"generator = {generator!r}: there is no codec at "
        f"{' or '.join(str(run / FOLDER) for run in tried)}: fit a generator first, with "
        f"dwf generator --name {shlex.quote(name)}, or name one that is"
    )
