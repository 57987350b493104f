"""The base of every codec: the numbers it covers, a template for the others, a folder.

    codec.json    kind, settings, layout and what was measured in fitting; written last
    codec.npz     its arrays

Shape suffixes: N networks, D numbers of a network, K numbers of a code.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dwf.codecs.codes import Codes, CodeShape, gather
from dwf.codecs.config import CODECS, CodecConfig, CodecSettings
from dwf.errors import ConfigError, CorruptCheckpoint, RunConflict, ShapeMismatch
from dwf.files import read_json, reading_arrays, told_by
from dwf.plain import Json
from dwf.ranks import world
from dwf.run_folder import RunFolder, replacing, write_json
from dwf.settings import build, find, to_dict
from dwf.system_errors import of_system
from dwf.zoo.layout import Layout, Span
from dwf.zoo.moments import Sources, blocks_of, count_networks

if TYPE_CHECKING:  # tokens are a codec, which this module is the base of
    from dwf.codecs.tokens import Tiling

HEAD, ARRAYS = "codec.json", "codec.npz"
TellUnreached = Callable[[torch.Tensor], None]
"""Function that `Codec.draw` tells what no weights give of coded functions."""
_KEYS = ("kind", "config", "layout", "facts")


def codec_folder(run: RunFolder) -> Path:
    """The folder of a run that its codec is kept in."""
    return run.path / "codec"


def count_covered(layout: Layout, buffers: bool) -> int:
    """Return how many numbers of a network a codec covers, buffers only if asked."""
    return sum(stop - start for start, stop in layout.spans(buffers))


class Codec:
    """Base of the codecs.

    Args:
        config: its settings, which say what it can do.
        layout: of the networks it was fitted to.
        arrays: name -> array of what it learnt; `template_D` (float32) is always among them: the
            mean training network, which fills what the codec does not cover.
        facts: what was measured in fitting, plain data.
    """

    def __init__(
        self,
        config: CodecSettings,
        layout: Layout | None = None,
        *,
        arrays: dict[str, np.ndarray] | None = None,
        facts: dict[str, Json] | None = None,
    ):
        self.config, self.layout = config, layout
        self.arrays, self.facts = arrays or {}, facts or {}

    @classmethod
    def planned_shape(
        cls, config: CodecSettings, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return the shape of codes before fitting; `size` is the most it can be.

        Args:
            config: its settings.
            layouts: of the networks; several where the codec `mixes` them.
            num_train: how many networks it learns from.
        """
        raise NotImplementedError

    @classmethod
    def refuse_few(cls, config: CodecSettings, num_train: int) -> None:
        """Refuse fewer training networks than the settings need; raises `TooFewNetworks`.

        A codec that needs no certain number, as most, refuses none.
        """

    @property
    def shape(self) -> CodeShape:
        """Shape of the codes, once it is fitted; of a codec of several, of the first layout."""
        raise NotImplementedError

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "Codec":
        """Learn from training networks; measure on held-out ones. Ranks call it together.

        Args:
            train: networks to learn from, of one layout.
            val: networks held out for choices; may be none.
            run: large arrays, and the record of a codec that trains, go to its `codec_folder`.
            seed: of a codec that trains.

        One whose settings say `has_prior` also takes a `judge`: with `training.sample_every`, what
        scores codes drawn from its prior while it learns.

        Raises:
            TooFewNetworks: none, or fewer than the method needs.
            ShapeMismatch: the zoos differ in layout.
            CorruptShard: a row does not match its checksum.
        """
        raise NotImplementedError

    @property
    def spans(self) -> list[Span]:
        """The stretches of a row that it covers."""
        return self.spans_of(self.layout)

    def spans_of(self, layout: Layout) -> list[Span]:
        """Return the stretches of a row that it covers, of networks of a layout.

        Raises:
            ShapeMismatch: it was not fitted to this layout.
        """
        self._refuse_other(layout.digest)
        return layout.spans(self.config.buffers)

    def layout_of(self, digest: str) -> Layout:
        """Return the layout of a digest, one of those that it was fitted to.

        Raises:
            ShapeMismatch: it was not fitted to such a layout.
        """
        self._refuse_other(digest)
        return self.layout

    def log_volume(self, layout: Layout) -> float | None:
        """Return the log-determinant of `decode`, the map from codes to weights.

        None where decoding is not affine.
        """
        return None

    def template_of(self, layout: Layout) -> torch.Tensor:
        """Return template_D of networks of a layout."""
        self._refuse_other(layout.digest)
        return torch.from_numpy(self.arrays[self._name("template_D", layout.digest)])

    @property
    def num_covered(self) -> int:
        """How many numbers of a network it covers."""
        return sum(stop - start for start, stop in self.spans)

    def encode(self, weights_ND: torch.Tensor, layout: Layout) -> Codes:
        """Return the codes of networks.

        Args:
            weights_ND: float32.
            layout: the networks' layout.

        Raises:
            ShapeMismatch: the layout is not the one it was fitted to.
        """
        self._refuse_other(layout.digest)
        return Codes(self._encode(weights_ND), self.shape)

    def decode(self, codes: Codes, layout: Layout) -> torch.Tensor:
        """Return weights_ND, float32, of codes; uncovered numbers come from the template.

        Raises:
            ShapeMismatch: the layout is not the one it was fitted to.
        """
        self._refuse_other(codes.shape.layout)
        self._refuse_other(layout.digest)
        template_D = torch.from_numpy(self.arrays["template_D"])
        weights_ND = template_D.repeat(len(codes), 1)
        self._decode_into(codes.values, weights_ND)
        return weights_ND

    def draw(
        self,
        codes: Codes,
        layout: Layout,
        *,
        seed: int,
        first: int = 0,
        told: TellUnreached | None = None,
    ) -> torch.Tensor:
        """Return weights_ND of codes that are samples, or stand for such; see `decode`.

        Where the settings say `draws_rest`, what codes leave out is drawn by the stream of each
        sample's number; else it is `decode`.

        Args:
            codes: of samples in order.
            layout: of the networks.
            seed: of the streams.
            first: number of the first sample.
            told: is given, by codecs that solve for weights which compute coded functions, what no
                weights give of these, of each network and solved layer, [N, layers]: the root of
                its share of the energy, 0 where the functions are reached.
        """
        return self.decode(codes, layout)

    def decode_beside(
        self, codes: Codes, layout: Layout, *, weights_ND: torch.Tensor
    ) -> torch.Tensor:
        """Return what comes back of networks where what codes leave out is the networks' own.

        Args:
            codes: of the networks.
            layout: of the networks.
            weights_ND: the networks.
        """
        return self.decode(codes, layout)

    @classmethod
    def describe(cls, config: CodecSettings, sources: Sources) -> Iterator[str]:
        """Yield in words what a fit to these training networks would find; most know nothing."""
        yield from ()

    def tiling(self, known: Layout, new: Layout) -> "Tiling":
        """Return how networks of a new layout are made of tokens; where the settings say `tiles`.

        Args:
            known: one that it was fitted to.
            new: any.

        Raises:
            ConfigError: a new layer is like no known one.
        """
        raise NotImplementedError

    def decode_tiles(
        self, values_NSL: torch.Tensor, tiling: "Tiling", *, template_D: torch.Tensor
    ) -> torch.Tensor:
        """Return networks of a new layout, weights_ND, float32; where the settings say `tiles`.

        Args:
            values_NSL: codes of the tokens that the tiling names.
            tiling: what `tiling` returned.
            template_D: the numbers that are not covered.
        """
        raise NotImplementedError

    def encode_zoo(self, sources: Sources, file: Path | None = None) -> Codes:
        """Return the codes of networks of zoos, reading them block by block.

        Ranks call it together and share the blocks; each gets all codes.

        Args:
            sources: networks of one layout.
            file: where large codes are kept on disk; see `codes.gather`. Default: in memory.

        Raises:
            ShapeMismatch: a layout that the codec was not fitted to, or several layouts.
        """
        if not (count := count_networks(sources)):
            return self.shape.empty()
        blocks = blocks_of(sources)

        def encode(block: int) -> Codes:
            zoo, rows_B = blocks[block]
            return self.encode(torch.from_numpy(zoo.read(rows_B)), zoo.layout)

        return gather(world().in_order(len(blocks), encode), count, file=file)

    def save(self, folder: Path) -> None:
        """Write it to a folder; `load` reads it."""
        with replacing(folder / ARRAYS) as partial, open(partial, "wb") as file:
            np.savez(file, **self.arrays)
        head = {"kind": self.config.kind, "config": to_dict(self.config), "facts": self.facts}
        write_json(folder / HEAD, head | {"layout": self.layout.to_json()})

    @classmethod
    def load(cls, folder: Path) -> "Codec":
        """Read a codec that `save` wrote; called on `Codec`, any kind.

        Raises:
            RunConflict: the folder holds no whole codec.
            OSError: a file cannot be opened or read; it may be sound.
        """
        try:
            head = read_json(folder / HEAD, keys=_KEYS)
            if head["kind"] not in [*CODECS]:  # it may be a list
                raise ValueError(f"{HEAD}: kind = {head['kind']!r}")
            file = folder / ARRAYS
            with reading_arrays(file), np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)  # reading them holds them to the archive's checksums
            own = find(CODECS, head["kind"])
            config = build(CodecConfig, head["config"], source=str(folder / HEAD))
            with told_by(folder / HEAD):
                layout = Layout.from_json(head["layout"])
                codec = own(config, layout, arrays=arrays, facts=head["facts"])
            codec._open(folder)
        except (OSError, ValueError, KeyError, CorruptCheckpoint, ConfigError) as error:
            told = of_system(error, folder)
            if told and told.errno != errno.ENOENT:
                raise told from None
            raise RunConflict(
                f"{folder} holds no whole codec ({error}): remove the run's folder and fit the "
                "generator again with dwf generator"
            ) from None
        return codec

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _decode_into(self, values: torch.Tensor, weights_ND: torch.Tensor) -> None:
        raise NotImplementedError

    def _open(self, folder: Path) -> None:
        """Open what is kept beside the arrays."""

    def _name(self, name: str, digest: str) -> str:
        """Return the name of an array of one architecture."""
        return name

    def _refuse_other(self, digest: str) -> None:
        if digest != self.layout.digest:
            raise ShapeMismatch(
                f"the networks have layout {digest}, this codec was fitted to "
                f"{self.layout.digest}: give it networks of the zoo's architecture, or fit another"
            )


def unreached_words(parts: Sequence[torch.Tensor]) -> dict[str, str]:
    """Return by layer what no weights give of coded functions, in words; nothing of no layer.

    Args:
        parts: what `Codec.draw` told of some networks at a time.
    """
    if not parts:
        return {}
    share_NL, found = 100 * torch.cat(list(parts)).double(), {}
    for number, share_N in enumerate(share_NL.unbind(1), 2):
        said = f"{share_N.mean():.3g} %, at most {share_N.max():.3g} % (n = {len(share_N)})"
        found[f"layer {number}"] = said
    return found
