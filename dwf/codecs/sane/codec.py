"""SANE: networks of any size as sequences of latents, one for each token of their weights.

A transformer autoencoder learns from windows of tokens, of one architecture or of several, and
codes whole networks window by window (`halo.py`).

    codec.npz            template, shift and scale of each architecture
    codec.safetensors    the autoencoder; its settings and all layouts in the metadata

Source: Schuerholt et al., SANE (arXiv 2406.09997).

Shape suffixes: N networks, D numbers of a network, T tokens, C numbers of a token, B windows of a
batch, W tokens of a window, L numbers of a latent.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.linear import kernel_of, use_kernel
from dwf.backbones.token_autoencoder import TokenAutoencoder
from dwf.codecs.codec import codec_folder
from dwf.codecs.codes import Codes, CodeShape
from dwf.codecs.config import SaneConfig
from dwf.codecs.sane.behaviour import Behaviour
from dwf.codecs.sane.task import SaneTask, num_views
from dwf.codecs.several import SeveralLayouts
from dwf.codecs.tokens import Geometry, Tiling, TokenScaling
from dwf.codecs.trained import MODULE, TrainedCodec, load_module, save_module
from dwf.codecs.windows import WindowSampler, through_windows
from dwf.devices import find_device
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.files import parse_json
from dwf.randomness import seed_of, seeded
from dwf.ranks import world
from dwf.room import within_memory
from dwf.run_folder import RunFolder, RunPart
from dwf.settings import build, to_dict
from dwf.training.loop import train as train_module
from dwf.training.memory import activation_bytes
from dwf.training.task import Share
from dwf.zoo.layout import Layout, Span
from dwf.zoo.moments import Sources, count_networks, measure_moments


class SaneCodec(SeveralLayouts, TrainedCodec):
    """Codes are sequences of latents; what is lost on the way back is what was not learnt."""

    cure = (
        "give it networks of those zoos' architectures, or fit another codec with their zoo among "
        "codec_zoos"
    )
    module: TokenAutoencoder

    @classmethod
    def planned_shape(
        cls, config: SaneConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return sequences of one layout's latents; see `Codec.planned_shape`."""
        return _shape(config, *geometries(config, layouts))

    @property
    def shape(self) -> CodeShape:
        """Sequences of the latents of networks of the first zoo."""
        return self._shape_of(self.layout.digest)

    def _shape_of(self, digest: str) -> CodeShape:
        return _shape(self.config, self.geometries[digest])

    @classmethod
    def planned_module(cls, config: SaneConfig, layouts: Sequence[Layout]) -> TokenAutoencoder:
        """Return the autoencoder without memory; see the base.

        Raises:
            ConfigError: without layouts, its shape is not known; or learned positions are too few.
        """
        found = geometries(config, layouts)
        backbone = _backbone(config, found)  # asks geometries, whose tensors are kept and no shapes
        with torch.device("meta"):
            return _autoencoder(config, found, backbone=backbone)

    @classmethod
    def activation_bytes(cls, config: SaneConfig, module: TokenAutoencoder, *, share: Share) -> int:
        """Return what the backward needs of a micro-batch of windows; see the base.

        Raises:
            ConfigError: a micro-batch of one window, and a contrast to be made.
        """
        if config.contrast and share.micro == 1:
            raise ConfigError(
                f"codec.contrast = {config.contrast} tells windows of one micro-batch apart, and "
                f"training.batch_size = {share.batch_size} over {share.world} ranks and "
                f"{share.accumulate} micro-batches leaves one window in each: set more, fewer "
                "ranks, or contrast 0"
            )
        backbone = config.backbone
        return activation_bytes(
            share.micro * module.window * num_views(config),
            backbone.width,
            depth=2 * backbone.depth,
            expansion=backbone.expansion,
            half=config.training.compute.precision == "bf16",
            checkpointing=backbone.checkpointing,
        )

    @classmethod
    def how_to_save_activations(cls, config: SaneConfig) -> list[str]:
        """Return flags that lower the memory of activations; see the base."""
        return [] if config.backbone.checkpointing else ["--codec.backbone.checkpointing"]

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "SaneCodec":
        """Learn from windows of the training networks; see `Codec.fit`.

        The zoos may differ in layout; `self.layout` is the first's.

        Raises:
            ConfigError: learned positions are too few for the sequences; or as `Behaviour` and
                `WindowSampler`.
            TrainingDiverged: the loss is not finite; names shards and rows.
        """
        train, val = _with_networks(train), _with_networks(val)
        if not train:
            raise TooFewNetworks(
                "0 networks to learn from, at least 1 expected: train a zoo with more networks, or "
                "hold fewer of them out"
            )
        self._take({zoo.layout.digest: zoo.layout for zoo, _ in train})
        for zoo, _ in val:
            self._refuse_other(zoo.layout.digest)
        for digest in self.layouts:
            self._measure([source for source in train if source[0].layout.digest == digest])
        self._refuse_no_room(train)
        self.module = self._new_module(seed)
        self.facts = {
            "networks": count_networks(train),
            "architectures": len(self.layouts),
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "tokens": self.geometries[self.layout.digest].num_tokens,
            "token_size": self.geometries[self.layout.digest].size,
            "code_size": self.shape.size,
        }
        task = self._task(train, val, seed)
        outcome = train_module(
            task,
            self.config.training,
            seed=seed,
            run=RunPart(codec_folder(run), run.config),
            what="sane",
        )
        self.module = task.module
        if world().is_first:  # elsewhere it may be in pieces
            self.facts |= {"training": vars(outcome), "val": task.measure(self.module)}
        return self

    def _new_module(self, seed: int) -> TokenAutoencoder:
        with seeded(seed, "initialisation"):
            found = list(self.geometries.values())
            return _autoencoder(self.config, found, backbone=_backbone(self.config, found))

    def _take(self, layouts: dict[str, Layout], size: int | None = None) -> None:
        """Learn the shapes of the architectures, by digest; the first is the codec's own."""
        self.layouts = layouts
        self.layout = next(iter(layouts.values()))
        found = geometries(self.config, list(layouts.values()), size=size)
        self.geometries = dict(zip(layouts, found, strict=True))

    def _measure(self, train: Sources) -> None:
        """Learn the template and the scaling of one architecture."""
        digest = train[0][0].layout.digest
        moments = measure_moments(train)
        kind, geometry = self.config.tokens.standardise, self.geometries[digest]
        scaling = TokenScaling.fit(train, geometry, kind=kind, moments=moments)
        named = {"template_D": moments.mean_D.astype(np.float32)} | scaling.to_arrays()
        for name, array in named.items():
            self.arrays[self._name(name, digest)] = array

    def _scaling(self, digest: str) -> TokenScaling:
        names = ("shift_L", "scale_L")
        return TokenScaling.from_arrays({n: self.arrays[self._name(n, digest)] for n in names})

    def _task(self, train: Sources, val: Sources, seed: int) -> SaneTask:
        config, device = self.config, find_device(self.config.training.compute.device)

        def sampler(sources: Sources, word: str, places: bool = False) -> WindowSampler:
            digests = [zoo.layout.digest for zoo, _ in sources]
            return WindowSampler(
                sources,
                [self.geometries[digest] for digest in digests],
                scalings=[self._scaling(digest) for digest in digests],
                window=self.module.window,
                views=config.views[: num_views(config)],
                seed=seed_of(seed, word),
                places=places,
            )

        behaviour = None
        if config.behaviour.weight:
            scalings = [self._scaling(zoo.layout.digest) for zoo, _ in train]
            behaviour = Behaviour(
                config.behaviour, train, scalings=scalings, seed=seed, device=device
            )
        held_out = []
        if val:
            size = config.training.batch_size
            held_out = sampler(val, "validation").validation(config.val_windows, size)
        windows = sampler(train, "training", places=behaviour is not None)
        return SaneTask(
            config,
            self.module,
            sampler=windows,
            val_batches=held_out,
            device=device,
            behaviour=behaviour,
        )

    def spans_of(self, layout: Layout) -> list[Span]:
        """Return the stretches of a row that it covers; see `Codec.spans_of`."""
        self._refuse_other(layout.digest)
        return self.geometries[layout.digest].spans

    def encode(self, weights_ND: torch.Tensor, layout: Layout) -> Codes:
        """Return the codes of networks of any layout that it was fitted to; see `Codec.encode`."""
        self._refuse_other(layout.digest)
        geometry, scaling = self.geometries[layout.digest], self._scaling(layout.digest)
        tokens_NTC = geometry.tokenise(weights_ND)
        tokens_NTC = scaling.apply(tokens_NTC, geometry.layer_of_token_T, mask_TC=geometry.mask_TC)
        out_NTL = torch.empty(*tokens_NTC.shape[:2], self.config.backbone.latent)
        positions_T3 = geometry.positions_T3
        values = self._through(TokenAutoencoder.encode, tokens_NTC, positions_T3, out=out_NTL)
        return Codes(values, self._shape_of(layout.digest))

    def decode(self, codes: Codes, layout: Layout) -> torch.Tensor:
        """Return weights_ND of codes, uncovered numbers from the template; see `Codec.decode`."""
        self._refuse_other(codes.shape.layout)
        if codes.shape.layout != layout.digest:
            raise ShapeMismatch(
                f"codes of networks of layout {codes.shape.layout} cannot become networks of "
                f"layout {layout.digest}: decode them to the layout they were encoded from"
            )
        geometry = self.geometries[layout.digest]
        weights_ND = self.template_of(layout).repeat(len(codes), 1)
        every_T = torch.arange(geometry.num_tokens)
        geometry.detokenise(self._decode(codes.values, geometry, every_T), weights_ND)
        return weights_ND

    def tiling(self, known: Layout, new: Layout) -> Tiling:
        """Return how networks of a new layout are made of a known one's tokens; see the base."""
        self._refuse_other(known.digest)
        geometry = self.geometries[known.digest]
        tokens = replace(self.config.tokens, size=geometry.size)
        return Tiling.of(geometry, Geometry.of(new, tokens))

    def decode_tiles(
        self, values_NSL: torch.Tensor, tiling: Tiling, *, template_D: torch.Tensor
    ) -> torch.Tensor:
        """Return networks of a layout that it was not fitted to; see the base."""
        weights_ND = template_D.repeat(len(values_NSL), 1)
        tiling.lay(self._decode(values_NSL, tiling.known, tiling.tokens_S), weights_ND)
        return weights_ND

    def _decode(
        self, values_NTL: torch.Tensor, geometry: Geometry, tokens_T: torch.Tensor
    ) -> torch.Tensor:
        """Return tokens_NTC, as weights are, of latents of some of an architecture's tokens."""
        out_NTC = torch.empty(*values_NTL.shape[:2], geometry.size)
        positions_T3 = geometry.positions_T3[tokens_T]
        tokens_NTC = self._through(TokenAutoencoder.decode, values_NTL, positions_T3, out=out_NTC)
        layer_T, mask_TC = geometry.layer_of_token_T[tokens_T], geometry.mask_TC[tokens_T]
        return self._scaling(geometry.layout.digest).undo(tokens_NTC, layer_T, mask_TC=mask_TC)

    @torch.no_grad()
    def _through(
        self, half: Callable, values: torch.Tensor, positions_T3: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Fill in and return what one half of the autoencoder makes of whole sequences."""
        device = next(self.module.parameters()).device

        def run(x_BWC: torch.Tensor, positions_BW3: torch.Tensor) -> torch.Tensor:
            return half(self.module, x_BWC.to(device), positions_BW3.to(device))

        config = self.config
        return through_windows(
            run,
            values,
            positions_T3=positions_T3,
            out_NTL=out,
            window=self.config.window,
            halo=config.halo,
            batch_size=config.encode_batch,
        )

    def save(self, folder: Path) -> None:
        """Write it to a folder; `Codec.load` reads it, on any machine."""
        about = {
            "backbone": to_dict(self.module.config),
            "token_size": self.module.token_size,
            "window": self.module.window,
            "kernel": kernel_of(self.module),
            "layouts": [layout.to_json() for layout in self.layouts.values()],
        }
        about = {"codec": json.dumps(about)}
        self.arrays["module_checksum"] = save_module(self.module, folder, about=about)
        super().save(folder)

    def _open(self, folder: Path) -> None:
        path, state = folder / MODULE, load_module(folder, int(self.arrays["module_checksum"]))
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {}).get("codec", ""), path)
        layouts = map(Layout.from_json, about["layouts"])
        self._take({layout.digest: layout for layout in layouts}, about["token_size"])
        config = build(TokenAutoencoderConfig, about["backbone"], source=str(path))
        self.module = within_memory(
            lambda: TokenAutoencoder(config, about["token_size"], window=about["window"]),
            config,
            key="codec.backbone",
        )
        self.module.load_state_dict(state)
        use_kernel(self.module, about["kernel"])
        device = "cpu" if self.config.training.compute.device == "cpu" else "auto"
        self.module.eval().to(find_device(device))  # not the GPU of another machine


def geometries(
    config: SaneConfig, layouts: Sequence[Layout], *, size: int | None = None
) -> tuple[Geometry, ...]:
    """Return the tokens of each architecture, all of one size; one that is given is not judged."""
    if size is not None:
        tokens = replace(config.tokens, size=size)
        return tuple(Geometry.of(layout, tokens) for layout in layouts)
    return Geometry.common(layouts, config.tokens) if layouts else ()


@lru_cache(maxsize=64)
def _shape(config: SaneConfig, geometry: Geometry) -> CodeShape:
    mask_TL = torch.ones(geometry.num_tokens, config.backbone.latent, dtype=torch.bool)
    return CodeShape.sequences((geometry.layout.digest,), geometry.positions_T3, mask=mask_TL)


def _backbone(config: SaneConfig, found: Sequence[Geometry]) -> TokenAutoencoderConfig:
    """Return the backbone's settings with what follows from the others and from geometries."""
    backbone = config.backbone
    if not config.contrast:
        backbone = replace(backbone, projection=0)
    if backbone.positions == "learned":
        backbone = replace(backbone, max_positions=_positions(backbone, found))
    return backbone


def _autoencoder(
    config: SaneConfig, found: Sequence[Geometry], *, backbone: TokenAutoencoderConfig
) -> TokenAutoencoder:
    """Build the autoencoder for tokens of these geometries, of which there may be none yet."""
    if not found and config.tokens.size is None:
        raise ConfigError(
            "codec.tokens.size is not set and no zoo is there to take it from: set it, or train "
            "the zoo first"
        )
    longest = max((geometry.num_tokens for geometry in found), default=config.window)
    size = found[0].size if found else config.tokens.size
    return within_memory(
        lambda: TokenAutoencoder(backbone, size, window=min(config.window, longest)),
        backbone,
        key="codec.backbone",
    )


def _positions(backbone: TokenAutoencoderConfig, found: Sequence[Geometry]) -> tuple[int, int, int]:
    """Return the rows of the learned tables; refuse tables that are too short."""
    given = backbone.max_positions
    if not found and given is None:
        raise ConfigError(
            "codec.backbone.max_positions is not set and no zoo is there to take it from: set it, "
            "or train the zoo first"
        )
    if not found:
        return given
    needed = torch.stack([g.positions_T3.amax(0) for g in found]).amax(0).add(1).tolist()
    if given is None:
        return tuple(needed)
    if any(have < need for have, need in zip(given, needed, strict=True)):
        raise ConfigError(
            f"codec.backbone.max_positions = {list(given)}: these networks have up to {needed} "
            "(tokens, layers, units); set at least that, leave it out, or set "
            "codec.backbone.positions to sinusoidal"
        )
    return given


def _with_networks(sources: Sources) -> Sources:
    return [(zoo, rows) for zoo, rows in sources if len(rows)]
