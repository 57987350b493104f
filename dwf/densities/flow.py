"""Flow matching as a density: fit to codes, sample, evaluate the likelihood.

Within, all codes are vectors: of a sequence, the numbers that stand for weights, token after token.
So a loss is a mean over weights, and a likelihood is on their space, whatever the padding.

Shape suffixes: N codes, B codes of a chunk, K numbers of a code.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dwf.backbones.config import build_backbone
from dwf.codecs.codes import Codes
from dwf.densities.config import FlowConfig
from dwf.densities.matching import LAST_TIME, FlowMatching, velocity_of_target
from dwf.densities.scaling import Scaling, vectors
from dwf.densities.solver import draw_noise, solve
from dwf.errors import TooFewNetworks
from dwf.randomness import seeded, torch_stream
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict
from dwf.training.loop import Outcome, find_device, train

FILE = "flow.pt"
# Numbers of the codes that are integrated at once.
_CHUNK_NUMBERS = 2**24
# Up to this many numbers, a likelihood takes the exact trace of the Jacobian.
_EXACT_FEATURES = 64


class Flow:
    """A continuous normalising flow from Gaussian noise (t = 0) to codes (t = 1)."""

    files = (FILE,)
    """What `save` writes."""

    def __init__(self, config: FlowConfig):
        self.config = config
        self.device = find_device(config.training.device)

    def fit(self, train_codes: Codes, val_codes: Codes, run: RunFolder, seed: int = 0) -> Outcome:
        """Learn the velocity, or go on where the run stopped.

        Args:
            train_codes: to learn from, vectors [N, K] or sequences [N, T, C].
            val_codes: held-out ones, for validation; may be empty.
            run: takes checkpoints and metrics; of this density alone.
            seed: of initialisation, batches and noise.

        Raises:
            TooFewNetworks: fewer training codes than the batch size.
            ShapeMismatch: the codes are not of one shape; see `scaling.vectors`.
            ConfigError: the backbone takes sequences and the codes are vectors, or the reverse.
            TrainingDiverged: the loss is not finite.
        """
        train_NK, val_NK = vectors(train_codes), vectors(val_codes, like=train_codes)
        batch_size = self.config.training.batch_size
        if len(train_NK) < batch_size:
            raise TooFewNetworks(
                f"{len(train_NK)} training networks are fewer than batch_size = {batch_size}: "
                f"lower training.batch_size to at most {len(train_NK)}, or train a larger zoo"
            )
        self._prepare(train_codes, Scaling.fit(train_NK, self.config.standardise), seed)
        task = FlowMatching(
            self.config,
            self.module,
            self.scaling.apply(train_NK.to(self.device)),
            self.scaling.apply(val_NK.to(self.device)),
            seed,
        )
        return train(task, self.config.training, seed, run, "flow")

    def _prepare(self, codes: Codes, scaling: Scaling, seed: int) -> None:
        self.like = replace(codes, values=codes.values[:0].cpu())
        self.scaling = scaling.to(self.device)
        with seeded(seed, "initialisation"):
            module = build_backbone(self.config.backbone, codes.size, codes.groups)
        self.module = module.to(self.device).eval()

    def velocity(self, x_BK: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the velocity_BK of points in standardised units at one time in [0, 1]."""
        if self.config.prediction == "velocity":
            return self.module(x_BK, t.reshape(1))
        t = t.clamp(max=LAST_TIME)
        target_BK = self.module(x_BK, t.reshape(1))
        return velocity_of_target(target_BK, x_BK, t, self.config.source_std, self.config.sigma)

    @torch.no_grad()
    def sample(
        self, count: int, seed: int, first: int = 0, chunk: int | None = None, **solver: Any
    ) -> Codes:
        """Draw codes.

        Args:
            count: how many.
            seed: sample i of a seed starts from the same noise, whatever `count` and `chunk`.
            first: number of the first sample.
            chunk: how many are integrated at once; default by their size.
            solver: settings of `SolverConfig` other than the configured ones.

        Returns:
            Codes on the CPU, in the shape of the training codes.
        """
        num_features = self.like.size
        settings = replace(self.config.solver, **solver)
        noise_NK = draw_noise(count, num_features, seed, first) * self.config.source_std
        chunk = chunk or max(1, _CHUNK_NUMBERS // num_features)
        for x_BK in noise_NK.split(chunk):  # views: the noise becomes the samples
            moved_BK = solve(lambda t, x: self.velocity(x, t), x_BK.to(self.device), settings)
            x_BK.copy_(self.scaling.undo(moved_BK))
        return self.like.refill(noise_NK)

    def log_prob(
        self,
        codes: Codes,
        exact: bool | None = None,
        probes: int = 8,
        seed: int = 0,
        **solver: Any,
    ) -> torch.Tensor:
        """Return the log density of codes in nats, float32, shape [N].

        By the instantaneous change of variables (Chen et al., arXiv 1806.07366, eq. 8).

        Args:
            codes: in the shape of the training codes.
            exact: the exact trace of the Jacobian, in O(K) more time; otherwise Hutchinson's
                estimate (arXiv 1810.01367), unbiased. Default: exact up to 64 numbers.
            probes: random signs an estimate is the mean of.
            seed: of the random signs.
            solver: settings of `SolverConfig` other than the configured ones.
        """
        values_NK = vectors(codes, like=self.like)
        num_features = values_NK.shape[1]
        settings = replace(self.config.solver, **solver)
        exact = num_features <= _EXACT_FEATURES if exact is None else exact
        generator = torch_stream(seed, "hutchinson")
        chunk = max(1, _CHUNK_NUMBERS // (num_features * (num_features if exact else probes)))
        parts = []
        for x_BK in values_NK.split(chunk):
            signs = torch.randint(0, 2, (probes, *x_BK.shape), generator=generator) * 2.0 - 1
            x_BK = self.scaling.apply(x_BK.to(self.device))
            parts.append(self._log_prob(x_BK, None if exact else signs.to(x_BK), settings))
        return torch.cat(parts).cpu() - self.scaling.log_volume(num_features)

    def _log_prob(self, x_BK: torch.Tensor, signs: torch.Tensor | None, settings: Any) -> Any:
        def rates(t: torch.Tensor, state: tuple) -> tuple[torch.Tensor, torch.Tensor]:
            if signs is None:
                return self._exact_divergence(state[0], t)
            return self._estimated_divergence(state[0], t, signs)

        # Attention's fused kernels know no vmap: it would call them once for each row.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            start = (x_BK, x_BK.new_zeros(len(x_BK)))
            x0_BK, change_B = solve(rates, start, settings, start=1.0, end=0.0)
        variance = self.config.source_std**2
        log_source_B = -0.5 * (x0_BK.square() / variance + math.log(2 * math.pi * variance)).sum(1)
        return log_source_B + change_B

    def _exact_divergence(self, x_BK: torch.Tensor, t: torch.Tensor) -> tuple:
        def one(x_K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            v_K = self.velocity(x_K.unsqueeze(0), t).squeeze(0)
            return v_K, v_K

        jacobian_BKK, v_BK = torch.func.vmap(torch.func.jacrev(one, has_aux=True))(x_BK)
        return v_BK, jacobian_BKK.diagonal(dim1=1, dim2=2).sum(1)

    def _estimated_divergence(
        self, x_BK: torch.Tensor, t: torch.Tensor, signs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        v_BK, pull = torch.func.vjp(lambda x: self.velocity(x, t), x_BK)
        pulled = torch.func.vmap(lambda sign_BK: pull(sign_BK)[0])(signs)
        return v_BK, (pulled * signs).sum(2).mean(0)

    def save(self, folder: Path) -> None:
        """Write the fitted flow to `folder/flow.pt`."""
        state = {
            "config": to_dict(self.config),
            "module": self.module.state_dict(),
            "scaling": vars(self.scaling),
            "like": vars(self.like),
        }
        save_state(Path(folder) / FILE, state)

    @classmethod
    def load(cls, folder: Path) -> "Flow":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: the file is damaged.
        """
        path = Path(folder) / FILE
        state = load_state(path)
        flow = cls(build(FlowConfig, state["config"], str(path)))
        flow._prepare(Codes(**state["like"]), Scaling(**state["scaling"]), seed=0)
        flow.module.load_state_dict(state["module"])
        return flow
