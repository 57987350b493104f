"""How much of networks' accuracy is left when their layers are exchanged among each other.

Each layer of a network then comes from another network of its set, drawn for each layer by itself.
Layers that were drawn independently of each other lose nothing by it; those of trained networks,
which depend on each other, do. A layer is a weight and what follows it up to the next weight.

Shape suffixes: S networks that are exchanged, B of a block, D numbers of a network.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from dwf import preemption
from dwf.plain import Json
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout, Span
from dwf.zoo.store import Zoo

MOST_EXCHANGED = 256
"""Networks of a set that are exchanged at most, as they are scored once more."""
_BLOCK_BYTES = 2**26
_CLEARLY = 1.96  # standard errors


def layers_of(layout: Layout) -> list[Span]:
    """Return the stretch of a row that each layer is, in order; together they are the row."""
    starts = [entry.offset for entry in layout.entries if entry.role == "weight"][1:]
    return list(zip([0, *starts], [*starts, layout.size], strict=True))


def exchange_layers(zoo: Zoo, rows_S: np.ndarray, *, seed: int) -> Iterator[np.ndarray]:
    """Yield networks of exchanged layers, weights_BD, a block at a time, as many as rows.

    Args:
        zoo: whose networks.
        rows_S: which.
        seed: of which network gives its layer to which.
    """
    spans = layers_of(zoo.layout)
    orders = [
        numpy_stream(seed, "exchanged layers", layer).permutation(len(rows_S))
        for layer in range(len(spans))
    ]
    size = max(1, _BLOCK_BYTES // (4 * zoo.layout.size))
    for first in range(0, len(rows_S), size):
        parts = [
            zoo.read(rows_S[order_S[first : first + size]], start, stop=stop)
            for order_S, (start, stop) in zip(orders, spans, strict=True)
        ]
        yield np.concatenate(parts, axis=1)


def measure_coherence(
    zoo: Zoo,
    rows_S: np.ndarray,
    *,
    accuracy_S: np.ndarray,
    chance: float,
    seed: int,
    score: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Json]:
    """Return what is left of the accuracy of networks whose layers are exchanged.

    Args:
        zoo: whose networks.
        rows_S: which; of more than `MOST_EXCHANGED`, so many are drawn.
        accuracy_S: their own accuracy.
        chance: accuracy without a look at the inputs.
        seed: of the draw and the exchange.
        score: weights_BD -> accuracy_B.

    Returns:
        `n`, `layers`, `before` and `after` (mean accuracy of these networks and of those of
        exchanged layers), `chance`, and `left`: the share of what is above chance; None where the
        networks themselves are not clearly above it. Nothing of fewer than two networks.
    """
    if len(rows_S) < 2:
        return {}
    if len(rows_S) > MOST_EXCHANGED:
        drawn = numpy_stream(seed, "exchanged networks").permutation(len(rows_S))
        drawn = np.sort(drawn[:MOST_EXCHANGED])
        rows_S, accuracy_S = rows_S[drawn], accuracy_S[drawn]
    found = []
    for weights_BD in exchange_layers(zoo, rows_S, seed=seed):
        found.append(score(weights_BD))
        if preemption.is_asked():
            preemption.stop()
    before, after = float(accuracy_S.mean()), float(np.concatenate(found).mean())
    error = float(accuracy_S.std(ddof=1)) / math.sqrt(len(rows_S))
    is_above = before - chance > _CLEARLY * error and before > chance
    return {
        "n": len(rows_S),
        "layers": len(layers_of(zoo.layout)),
        "before": before,
        "after": after,
        "chance": chance,
        "left": (after - chance) / (before - chance) if is_above else None,
    }
