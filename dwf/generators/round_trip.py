"""Error of encoding and decoding networks, in weights.

Shape suffixes: B networks of a block, D numbers of a network.
"""

import torch

from dwf.codecs.codec import Codec
from dwf.zoo.moments import Sources


def round_trip_error(codec: Codec, sources: Sources) -> dict[str, float] | None:
    """Return what is lost by encoding and decoding networks; None where there are none.

    Returns:
        `rmse`: root mean squared error of a weight; `relative`: root of the share of the networks'
        squared distance to the training networks' mean that is lost; `covered` of `numbers`: how
        many of a network's numbers the codec covers (of its first layout). Only these count.
    """
    lost, energy, count = 0.0, 0.0, 0
    for zoo, rows in sources:
        template_D, spans = codec.template_of(zoo.layout), codec.spans_of(zoo.layout)
        for _, weights in zoo.stream(rows):
            weights_BD = torch.from_numpy(weights)
            decoded_BD = codec.decode(codec.encode(weights_BD, zoo.layout), zoo.layout)
            for start, stop in spans:
                part = slice(start, stop)
                wanted = weights_BD[:, part]
                lost += (decoded_BD[:, part] - wanted).double().square().sum().item()
                energy += (wanted - template_D[part]).double().square().sum().item()
                count += wanted.numel()
    if not count:
        return None
    error = {"rmse": (lost / count) ** 0.5, "relative": (lost / energy) ** 0.5 if energy else 0.0}
    return error | {"covered": codec.num_covered, "numbers": codec.layout.size}
