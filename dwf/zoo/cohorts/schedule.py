"""Factor on the learning rate of a recipe, epoch by epoch or step by step."""

import math

from dwf.zoo.config import RecipeConfig

# Of torch's OneCycleLR, at their defaults there: share of the steps in which the rate rises, what
# its largest value is divided by at the start, and that once more at the end; and the momentum.
_RISE, _START, _END = 0.3, 25.0, 1e4
_MOMENTUM_LOW, _MOMENTUM_HIGH = 0.85, 0.95


def learning_rate_factor(recipe: RecipeConfig, step: int, *, steps_per_epoch: int) -> float:
    """Return what the learning rate is multiplied with in a step.

    Args:
        recipe: how the networks are trained.
        step: counted from 0 over all epochs.
        steps_per_epoch: steps of an epoch.
    """
    if recipe.schedule == "one_cycle":
        first = 1 / _START
        turn, share = _phase(step, recipe.epochs * steps_per_epoch)
        return _anneal(first, 1.0, share) if turn == 0 else _anneal(1.0, first / _END, share)
    by_step = recipe.schedule_by == "step"
    at = step if by_step else step // steps_per_epoch
    whole = recipe.epochs * (steps_per_epoch if by_step else 1)
    if at < recipe.warm_up:
        return (at + 1) / recipe.warm_up
    at, whole = at - recipe.warm_up, whole - recipe.warm_up
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * at / (recipe.schedule_length or whole)))
    if recipe.schedule == "step":
        return recipe.gamma ** (at // recipe.step_size)
    if recipe.schedule == "multistep":
        return recipe.gamma ** sum(at >= milestone for milestone in recipe.milestones)
    return 1.0


def cycled_momentum(recipe: RecipeConfig, step: int, *, steps_per_epoch: int) -> float | None:
    """Return the momentum (of Adam the first beta) in a step; None where it stays as it is.

    `one_cycle` moves it against the learning rate (Smith & Topin, arXiv 1708.07120).
    """
    if recipe.schedule != "one_cycle":
        return None
    turn, share = _phase(step, recipe.epochs * steps_per_epoch)
    low, high = _MOMENTUM_LOW, _MOMENTUM_HIGH
    return _anneal(high, low, share) if turn == 0 else _anneal(low, high, share)


def _phase(step: int, num_steps: int) -> tuple[int, float]:
    """Whether the rate rises (0) or falls (1), and the share of that which is over."""
    top = _RISE * num_steps - 1
    if step <= top:
        return 0, step / top
    return 1, (step - top) / (num_steps - 1 - top)


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
