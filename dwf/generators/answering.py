"""Networks that codes stand for, asked for their answers to training images.

Shape suffixes: R codes, K numbers of a code, M images, C logits.
"""

import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.errors import ConfigError
from dwf.generators.batchnorm import has_statistics
from dwf.networks.functional import run_networks
from dwf.randomness import torch_stream
from dwf.zoo.store import Zoo

# Networks, and images for each, over which answers are measured; and the step of the differences,
# in deviations: small for the first order, large for float32.
_NETWORKS, _IMAGES, _STEP = 256, 256, 1e-2


class Answering:
    """Asks networks for logits, in units of what errors of deviation 1 in each number change.

    Args:
        codec: fitted; makes the codes.
        zoo: that it learnt from.

    Raises:
        ConfigError: codes are of several architectures; or decoded networks cannot answer, as their
            BatchNorm statistics are not theirs.
    """

    def __init__(self, codec: Codec, zoo: Zoo):
        self.codec, self.layout = codec, zoo.layout
        self.network, self.data = zoo.build_network(), zoo.load_data()
        self.unit = 1.0
        """Root mean square change of a logit; see `measure`."""
        if codec.shape.is_mixed:
            raise ConfigError(
                f"density.answers asks networks of one architecture, and the codes are of "
                f"{len(codec.shape.layouts)}: learn from zoos of one, or set it to null"
            )
        if has_statistics(self.layout) and not codec.config.buffers:
            raise ConfigError(
                f"density.answers asks networks as they are decoded, and codec.kind = "
                f"{codec.config.kind!r} leaves BatchNorm's statistics to be estimated later: "
                "choose the codec functions, or set it to null"
            )

    def measure(self, codes: Codes, *, seed: int) -> float:
        """Return the root mean square change of a logit by errors of deviation 1, over networks.

        To first order, and of errors in units of each number's own deviation over the codes.

        Args:
            codes: of training networks.
            seed: of the choice of networks, of images and of errors.

        Raises:
            ConfigError: nothing that the codes cover changes an answer.
        """
        generator = torch_stream(seed, "answers")
        rows = torch.randperm(len(codes), generator=generator)[:_NETWORKS].sort().values
        numbers_RK = codes.take(rows).flatten().float()
        deviation_K = numbers_RK.std(0, correction=0)
        error_RK = torch.randn(numbers_RK.shape, generator=generator) * deviation_K * _STEP
        places_M = torch.rand(_IMAGES, generator=generator)
        total = 0.0
        with torch.no_grad():
            for one_RK, moved_RK in zip(
                numbers_RK.split(32), (numbers_RK + error_RK).split(32), strict=True
            ):
                change_RMC = self._logits(moved_RK, places_M) - self._logits(one_RK, places_M)
                total += change_RMC.double().square().mean((1, 2)).sum().item()
        unit = (total / len(rows)) ** 0.5 / _STEP
        if not unit > 0:
            raise ConfigError(
                "density.answers: nothing that the codes cover changes what their networks answer "
                "to training images: set it to null"
            )
        return unit

    def __call__(self, numbers_RK: torch.Tensor, places_M: torch.Tensor) -> torch.Tensor:
        """Return logits_RMC; see `densities.answers.Ask`."""
        return self._logits(numbers_RK, places_M) / self.unit

    def _logits(self, numbers_RK: torch.Tensor, places_M: torch.Tensor) -> torch.Tensor:
        rows_M = (places_M * len(self.data.train)).long()
        inputs = self.data.prepare(self.data.train.batch(rows_M.cpu())[0])
        codes = self.codec.shape.fill(numbers_RK.cpu())
        weights = self.codec.decode(codes, self.layout)
        logits = run_networks(self.network, self.layout.unflatten(weights), inputs=inputs)
        return logits.to(numbers_RK.device)
