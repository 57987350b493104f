"""Cost of trials, before anything is made: arithmetic, and time at a usual core's speed.

Counted are multiplications in the large matrices, two operations each, and three times as many in
training (forward, and backward to inputs and weights). The speeds are round numbers of one core
with AVX-512 in float32, as measured on small zoos and flows; they tell minutes from days. Networks
that are called one by one, as convolutional ones, take longer than said: twice, if very small six
times as long.
"""

from collections.abc import Sequence
from dataclasses import replace

from dwf.datasets.known import input_shape, trained_images
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.networks.config import MLPConfig
from dwf.zoo.config import ZooConfig, split_sizes

ZOO_SPEED, FLOW_SPEED = 10e9, 50e9
"""Operations a second of one core: many small networks at once; a flow on large batches."""
STEP_SECONDS = 1e-3
"""Least time of a training step, however small."""
_TRAINING, _EVALUATION = 6, 2
_ADAPTIVE = 100  # evaluations that dopri5 takes on a usual flow


def training_networks(zoo: ZooConfig) -> int:
    """Return how many networks of a zoo are learnt from, if none diverges."""
    return split_sizes(zoo.count, zoo.split.val, test=zoo.split.test)[0]


def learnt_networks(zoo: ZooConfig, generator: GeneratorConfig) -> int:
    """Return how many of these a generator learns from."""
    return min(training_networks(zoo), generator.networks or zoo.count)


def zoo_seconds(zoo: ZooConfig) -> float | None:
    """Return core-seconds of training a zoo; None of networks whose arithmetic is not known."""
    work = zoo.network.multiplications(input_shape(zoo.data))
    if work is None:
        return None
    return _TRAINING * work * trained_images(zoo.data) * zoo.recipe.epochs * zoo.count / ZOO_SPEED


def fit_seconds(zoo: ZooConfig, generator: GeneratorConfig) -> float | None:
    """Return core-seconds of training a density; 0 of one that does not, None if not known."""
    loop = generator.density.training
    if loop is None:
        return 0.0
    work = multiplications(zoo, generator)
    if work is None:
        return None
    return loop.steps * max(STEP_SECONDS, _TRAINING * work * loop.batch_size / FLOW_SPEED)


def sample_seconds(
    zoo: ZooConfig, generator: GeneratorConfig, *, sample: SampleConfig
) -> float | None:
    """Return core-seconds of drawing networks from a flow; 0 of other densities."""
    solver = generator.density.solver
    if solver is None:
        return 0.0
    work = multiplications(zoo, generator)
    if work is None:
        return None
    asked = {"method": sample.solver or solver.method, "steps": sample.steps or solver.steps}
    evaluations = replace(solver, **asked).evaluations or _ADAPTIVE
    return sample.drawn * evaluations * _EVALUATION * work / FLOW_SPEED


def multiplications(zoo: ZooConfig, generator: GeneratorConfig) -> float | None:
    """Return multiplications of one evaluation of a density's backbone for one code.

    None where the networks are not MLPs, the codec's codes are not known without a zoo, or the
    parts do not go together: then the trial fails, and says why.
    """
    if not isinstance(zoo.network, MLPConfig):
        return None
    num_train = learnt_networks(zoo, generator)
    shape = generator.codec.shape_of_mlp(zoo.network.widths, num_train)
    backbone = generator.density.backbone
    if shape is None or backbone.takes_tokens != (shape.sections is not None):
        return None
    return backbone.multiplications(shape)


def in_hours(name: str, parts: Sequence[float | None]) -> str:
    """Return in words what some parts take together, and how many are not known."""
    known = [part for part in parts if part is not None]
    text = f"{name} {sum(known) / 3600:.2g}"
    unknown = len(parts) - len(known)
    return f"{text} ({unknown} of {len(parts)} not known)" if unknown else text
