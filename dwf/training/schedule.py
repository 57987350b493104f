"""Learning rates as a function of the step, so that a resumed run needs no state for them."""

import math

from dwf.training.config import LoopConfig

# Of Smith and Topin's one-cycle policy (arXiv 1708.07120), as torch's OneCycleLR has them.
_FIRST_SHARE, _RISING_SHARE = 1 / 25, 0.3


def rate_at(step: int, config: LoopConfig) -> float:
    """Return the learning rate of the update that follows `step` updates."""
    if config.schedule == "one_cycle":
        return _one_cycle(step, config)
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "step":  # as torch's StepLR, which counts from the first step
        return config.learning_rate * config.gamma ** (step // config.step_size)
    share = (step - config.warm_up) / (config.steps - config.warm_up)
    return _cosine(config.learning_rate, config.minimum_rate, share)


def _one_cycle(step: int, config: LoopConfig) -> float:
    last = config.steps - 1
    peak = (config.warm_up or _RISING_SHARE * config.steps) - 1
    if step < peak:
        return _cosine(config.learning_rate * _FIRST_SHARE, config.learning_rate, step / peak)
    return _cosine(config.learning_rate, config.minimum_rate, (step - peak) / (last - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
