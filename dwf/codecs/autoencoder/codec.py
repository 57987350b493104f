"""Networks as vectors of latents, by an autoencoder that learns (codecs `conv_autoencoder`, `vae`).

    codec.npz            template, shift and scale, means of running variances
    codec.safetensors    the autoencoder

Modules are in evaluation mode whenever networks are coded: a network's latents are its own,
whatever it is coded with (the published p-diff codes by the statistics of the batch).

Sources: p-diff (arXiv 2402.13144); VAE-Diffusion of CIFAR-10 TinyCNN.

Shape suffixes: N networks, D numbers of a network, K numbers that are covered, L latents.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dwf.backbones.vector_autoencoder import VectorAutoencoder, build_autoencoder
from dwf.codecs.autoencoder.numbers import Numbers, chosen
from dwf.codecs.autoencoder.task import AutoencoderTask, Networks
from dwf.codecs.codec import codec_folder
from dwf.codecs.codes import Codes, CodeShape, Judge
from dwf.codecs.config import AutoencoderSettings
from dwf.codecs.trained import TrainedCodec, load_module, save_module
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.randomness import seed_of, seeded, torch_stream
from dwf.ranks import world
from dwf.run_folder import RunFolder, RunPart
from dwf.training.loop import train as train_module
from dwf.zoo.layout import Layout, Span, spans_of
from dwf.zoo.moments import Sources, common_layout, count_networks

CODED_NUMBERS = 2**24
"""Numbers of the widest layer of the networks that are coded at once."""


class AutoencoderCodec(TrainedCodec):
    """Codes are vectors of latents; what is lost on the way back is what was not learnt."""

    config: AutoencoderSettings
    module: VectorAutoencoder

    @classmethod
    def planned_shape(
        cls, config: AutoencoderSettings, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return vectors of the latents; see `Codec.planned_shape`.

        Raises:
            ConfigError: see `numbers.chosen`.
        """
        (layout,) = layouts
        return CodeShape.vectors(layout.digest, config.backbone.latents(_count(layout, config)))

    @property
    def shape(self) -> CodeShape:
        """Vectors of the latents."""
        return self.planned_shape(self.config, [self.layout], num_train=0)

    @classmethod
    def planned_module(
        cls, config: AutoencoderSettings, layouts: Sequence[Layout]
    ) -> VectorAutoencoder:
        """Return the autoencoder without memory; see the base.

        Raises:
            ConfigError: without a layout its size is not known; or as `numbers.chosen`.
        """
        if not layouts:
            raise ConfigError("no zoo is there to take the networks' size from: train it first")
        with torch.device("meta"):
            return _autoencoder(config, layouts[0])

    def spans_of(self, layout: Layout) -> list[Span]:
        """Return the stretches of a row that it covers; see `Codec.spans_of`."""
        self._refuse_other(layout.digest)
        return spans_of(chosen(layout, self.config))

    def fit(
        self,
        train: Sources,
        val: Sources,
        *,
        run: RunFolder,
        seed: int = 0,
        judge: Judge | None = None,
    ) -> "AutoencoderCodec":
        """Learn from the training networks; see `Codec.fit`.

        Raises:
            ConfigError: see `numbers.chosen`; or a running variance is below 0.
            TrainingDiverged: the loss is not finite; names zoos and rows.
        """
        config, self.layout = self.config, common_layout(train)
        for zoo, _ in val:
            self._refuse_other(zoo.layout.digest)
        train = [source for source in train if len(source[1])]
        self.numbers, moments = Numbers.fit(train, chosen(self.layout, config), config=config)
        self.arrays = {
            "template_D": moments.mean_D.astype(np.float32),
            "shift_K": self.numbers.shift_K.numpy(),
            "scale_K": self.numbers.scale_K.numpy(),
            "variances": np.array(self.numbers.variances),
        }
        with seeded(seed, "initialisation"):
            self.module = _autoencoder(config, self.layout)
        self.facts = {
            "networks": count_networks(train),
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "code_size": self.shape.size,
        }
        task = AutoencoderTask(
            config,
            self.module,
            train=Networks(train, self.numbers),
            val=Networks(val, self.numbers),
            device=find_device(config.training.compute.device),
            seed=seed_of(seed, "training"),
        )
        outcome = train_module(
            task,
            config.training,
            seed=seed,
            run=RunPart(codec_folder(run)),
            what=config.kind,
            look=partial(self._look, judge, seed) if judge else None,
        )
        self.module = task.module
        if world().is_first:  # elsewhere it may be in pieces
            self.facts |= {"training": vars(outcome), "val": task.measure(self.module)}
        return self

    def _look(self, judge: Judge, seed: int, module: VectorAutoencoder) -> dict[str, float]:
        """Return what the judge says of latents of the prior, as the module decodes them now.

        From the same latents at each look.
        """
        trained, self.module = self.module, module
        try:
            size = (self.config.training.sample_count, self.shape.size)
            drawn_NL = torch.randn(size, generator=torch_stream(seed, "look"))
            return judge(Codes(drawn_NL, self.shape))
        finally:
            self.module = trained

    def save(self, folder: Path) -> None:
        """Write it to a folder; `Codec.load` reads it, on any machine."""
        self.arrays["module_checksum"] = save_module(self.module, folder)
        super().save(folder)

    def _open(self, folder: Path) -> None:
        entries = chosen(self.layout, self.config)
        shift_K, scale_K = (torch.from_numpy(self.arrays[n]) for n in ("shift_K", "scale_K"))
        self.numbers = Numbers(
            entries,
            self.config.log_variances,
            shift_K,
            scale_K=scale_K,
            variances=tuple(self.arrays["variances"].tolist()),
        )
        self.module = _autoencoder(self.config, self.layout)
        self.module.load_state_dict(load_module(folder, int(self.arrays["module_checksum"])))
        device = "cpu" if self.config.training.compute.device == "cpu" else "auto"
        self.module.eval().to(find_device(device))  # not the GPU of another machine

    @torch.no_grad()
    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        x_NK = self.numbers.take(weights_ND)
        out_NL = torch.empty(len(x_NK), self.shape.size)
        for x_BK, out_BL in zip(self._split(x_NK), self._split(out_NL), strict=True):
            out_BL.copy_(self.module.encode(x_BK.to(self._device)))
        return out_NL

    @torch.no_grad()
    def _decode_into(self, values_NL: torch.Tensor, weights_ND: torch.Tensor) -> None:
        for latent_BL, out_BD in zip(self._split(values_NL), self._split(weights_ND), strict=True):
            made_BK = self.module.decode(latent_BL.to(self._device))
            self.numbers.put(made_BK.cpu(), out_BD)

    def _split(self, networks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what belongs to the networks that are coded at once, as views."""
        return networks.split(
            max(1, CODED_NUMBERS // self.config.backbone.widest(self.num_covered))
        )

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def _count(layout: Layout, config: AutoencoderSettings) -> int:
    return sum(entry.size for entry in chosen(layout, config))


def _autoencoder(config: AutoencoderSettings, layout: Layout) -> VectorAutoencoder:
    return build_autoencoder(config.backbone, _count(layout, config), variational=config.kl > 0)
