"""Every schedule against torch's own scheduler."""

import pytest
import torch
from torch.optim import lr_scheduler

from dwf.zoo.cohorts.schedule import cycled_momentum, learning_rate_factor
from dwf.zoo.config import RecipeConfig

EPOCHS, STEPS = 12, 5
BY_EPOCH = {
    "constant": (RecipeConfig(epochs=EPOCHS), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "cosine": (
        RecipeConfig(epochs=EPOCHS, schedule="cosine"),
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    ),
    "step": (
        RecipeConfig(epochs=EPOCHS, schedule="step", step_size=5, gamma=0.5),
        lambda o: lr_scheduler.StepLR(o, 5, 0.5),
    ),
    "multistep": (
        RecipeConfig(epochs=EPOCHS, schedule="multistep", milestones=(3, 7), gamma=0.2),
        lambda o: lr_scheduler.MultiStepLR(o, [3, 7], 0.2),
    ),
    "warm-up": (
        RecipeConfig(epochs=EPOCHS, schedule="cosine", warm_up=4),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 1 / 4, 1.0, 3),
                lr_scheduler.CosineAnnealingLR(o, EPOCHS - 4),
            ],
            [4],
        ),
    ),
}


def rates(make, count: int, **optimizer) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], lr=1.0, **optimizer)
    scheduler, found = make(sgd), []
    for _ in range(count):
        found.append((sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]))
        sgd.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", BY_EPOCH)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_by_epoch(name):
    recipe, make = BY_EPOCH[name]
    expected = [rate for rate, _ in rates(make, EPOCHS) for _ in range(STEPS)]
    found = [
        learning_rate_factor(recipe, step, steps_per_epoch=STEPS) for step in range(EPOCHS * STEPS)
    ]
    assert found == pytest.approx(expected, abs=1e-12)


def test_by_step_and_up_again_behind_the_length():
    recipe = RecipeConfig(epochs=EPOCHS, schedule="cosine", schedule_by="step", schedule_length=17)
    found = [
        learning_rate_factor(recipe, step, steps_per_epoch=STEPS) for step in range(EPOCHS * STEPS)
    ]
    expected = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 17), EPOCHS * STEPS)
    assert found == pytest.approx([rate for rate, _ in expected], abs=1e-9)
    assert found[34] == pytest.approx(1.0), "the highest rate again, after twice the length"


def test_one_cycle_of_rate_and_momentum():
    recipe = RecipeConfig(epochs=EPOCHS, schedule="one_cycle")
    steps = range(EPOCHS * STEPS)
    found = [learning_rate_factor(recipe, step, steps_per_epoch=STEPS) for step in steps]
    momenta = [cycled_momentum(recipe, step, steps_per_epoch=STEPS) for step in steps]
    expected = rates(
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=EPOCHS * STEPS),
        len(steps),
        momentum=0.9,
    )
    assert found == pytest.approx([rate for rate, _ in expected], abs=1e-12)
    assert momenta == pytest.approx([momentum for _, momentum in expected], abs=1e-12)
    assert cycled_momentum(RecipeConfig(), 3, steps_per_epoch=STEPS) is None
