"""A loss on what reconstructed networks answer, beside that on their weights.

A window's reconstruction is put at its place into its network; the changed network and the original
answer for the same training images, and the loss is the difference of the answers. So numbers that
matter to the function count for more.

Source: arXiv 2503.17138.

Shape suffixes: N networks, D numbers of a network, B windows of a batch, W tokens of a window,
C numbers of a token, M images, K classes.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from dwf.codecs.config import BehaviourConfig
from dwf.codecs.tokens import TokenScaling
from dwf.errors import ConfigError
from dwf.networks.functional import run_networks
from dwf.randomness import torch_stream
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo


class Behaviour:
    """Compares reconstructed networks with the originals.

    Args:
        config: weight, measure, number of images and of networks.
        sources: the training networks.
        scalings: of the sources' tokens.
        seed: of the choice of images.
        device: where networks run.

    Raises:
        ConfigError: a zoo does not say what data its networks are for, or has too few images.
    """

    def __init__(
        self,
        config: BehaviourConfig,
        sources: Sources,
        *,
        scalings: Sequence[TokenScaling],
        seed: int,
        device: torch.device,
    ):
        self.config, self.device = config, device
        self.zoos, self.scalings = [zoo for zoo, _ in sources], scalings
        self.networks = [zoo.build_network().to(device) for zoo in self.zoos]
        self.images = [self._images(zoo, seed) for zoo in self.zoos]

    def _images(self, zoo: Zoo, seed: int) -> torch.Tensor:
        data = zoo.load_data()
        if self.config.images > len(data.train):
            raise ConfigError(
                f"behaviour.images = {self.config.images}: {zoo.path} was trained on "
                f"{len(data.train)} images; set at most as many"
            )
        order = torch.randperm(len(data.train), generator=torch_stream(seed, "behaviour"))
        images, _ = data.train.batch(order[: self.config.images])
        return data.prepare(images).to(self.device)

    def loss(
        self,
        reconstruction_BWC: torch.Tensor,
        places_BWC: torch.Tensor,
        *,
        layer_BW: torch.Tensor,
        source_B: torch.Tensor,
        row_B: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean difference of answers over the first `config.networks` windows.

        Args:
            reconstruction_BWC: what was made of standardised tokens.
            places_BWC: the place in the network's row of each slot, -1 for padding.
            layer_BW: the layer of each token.
            source_B: which source a window is of, on the CPU.
            row_B: which row of its zoo, likewise.
        """
        num = min(self.config.networks, len(reconstruction_BWC))
        total = reconstruction_BWC.new_zeros((), dtype=torch.float32)
        with torch.autocast(self.device.type, enabled=False):
            for source in source_B[:num].unique().tolist():
                mine = torch.nonzero(source_B[:num] == source).squeeze(1)
                originals = self.zoos[source].read(row_B[mine].numpy())
                originals_ND = torch.from_numpy(originals).to(self.device)
                undo = self.scalings[source].undo
                numbers = [
                    undo(reconstruction_BWC[i].float(), layer_BW[i], mask_TC=places_BWC[i] >= 0)
                    for i in mine.tolist()
                ]
                places = places_BWC[mine.to(places_BWC.device)]
                changed_ND = put(originals_ND, torch.stack(numbers), places_NWC=places)
                total = total + len(mine) * self._difference(source, changed_ND, originals_ND)
        return total / num

    def _difference(
        self, source: int, changed_ND: torch.Tensor, originals_ND: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean over networks and images of the difference of their answers.

        Running statistics stay the originals': a reconstructed variance may be negative.
        """
        network, layout = self.networks[source], self.zoos[source].layout
        original, changed = layout.unflatten(originals_ND), layout.unflatten(changed_ND)
        changed |= {e.name: original[e.name] for e in layout.entries if not e.is_learnt}
        with torch.no_grad():
            wanted = run_networks(network, original, inputs=self.images[source])
        logits = run_networks(network, changed, inputs=self.images[source])
        if self.config.measure == "logits":
            return functional.mse_loss(logits, wanted)
        logs, wanted_logs = (x.flatten(0, 1).log_softmax(1) for x in (logits, wanted))
        return functional.kl_div(logs, wanted_logs, reduction="batchmean", log_target=True)


def put(
    originals_ND: torch.Tensor, numbers_NWC: torch.Tensor, *, places_NWC: torch.Tensor
) -> torch.Tensor:
    """Return networks with some numbers replaced; the gradient reaches these numbers.

    Args:
        originals_ND: the networks.
        numbers_NWC: what is put into each.
        places_NWC: where, int64; -1: nowhere.
    """
    num, size = originals_ND.shape
    spare = originals_ND.new_zeros(num, 1)  # takes the padding
    index = torch.where(places_NWC < 0, size, places_NWC).flatten(1)
    widened = torch.cat([originals_ND, spare], 1).scatter(1, index, numbers_NWC.flatten(1))
    return widened[:, :size]
