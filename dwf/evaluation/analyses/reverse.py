"""Accuracy on the way from noise: networks drawn again, decoded and scored at several places.

p-diff draws it of its diffusion's states; a flow's are those of its differential equation.

Shape suffixes: B networks of a block, D numbers of a network, L looks.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from dwf.densities.asked import again
from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.report import (
    SAMPLE_COLOURS,
    SAMPLE_MARKERS,
    Width,
    legend_below,
    panels,
    statistics,
)
from dwf.generators.generator import Generator
from dwf.plain import Json
from dwf.zoo.provenance import Sampled
from dwf.zoo.store import Zoo

LOOKS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of the way from noise (0) to a network (1) that are looked at."""
MOST_NETWORKS = 100
"""Networks that are drawn again for each zoo of samples, at most."""


def reverse(material: Material) -> Findings:
    """Draw the samples' networks again and score them on their way."""
    words = (
        f"Networks are drawn again as the samples were (the first {MOST_NETWORKS} at most, before "
        "any selection), and their codes are decoded and scored as they stand at several places of "
        f"the way, from noise (0) to the network (1): mean {material.split} accuracy in percent. "
        "All of them count. A look shows the last state at or before its place.",
    )
    numbers: dict[str, Json] = {}
    for zoo in material.samples:
        reason, generator = _generator(material, zoo)
        if generator is None:
            words += (f"{material.title_of(zoo)}: {reason}.",)
        else:
            numbers[material.title_of(zoo)] = _follow(material, generator, zoo)
    if not numbers:
        return Findings(words)
    columns = ("networks", "n", *(f"{place:g}" for place in LOOKS))
    rows = [
        (title, str(found["n"]), *(f"{100 * each['mean']:.1f}" for each in found["accuracy"]))
        for title, found in numbers.items()
    ]
    return Findings(
        words,
        columns,
        rows=rows,
        numbers=numbers,
        figures={
            "reverse.png": ("Accuracy on the way from noise", partial(_curves, material, numbers))
        },
    )


def on_the_way(
    draw: Callable[..., torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
) -> list[torch.Tensor]:
    """Return weights_BD of networks at each of `LOOKS`; the last are those that are drawn.

    Args:
        draw: draws networks and shows a `watch` the share of the way done, rising from 0 for each
            chunk of them, and the numbers of their codes there.
        decode: makes networks of these numbers.
    """
    places = LOOKS[:-1]
    kept: list[list[torch.Tensor]] = [[] for _ in places]
    before = [2.0]

    def note(done: float, numbers_BK: torch.Tensor) -> None:
        begins = done < before[0]
        before[0] = done
        for look, place in enumerate(places):
            if begins:
                kept[look].append(numbers_BK)
            elif done <= place + 1e-6:
                kept[look][-1] = numbers_BK

    drawn_BD = draw(watch=note)
    return [*(decode(torch.cat(parts)) for parts in kept), drawn_BD]


def _generator(material: Material, zoo: Zoo) -> tuple[str, Generator | None]:
    """Return the generator of samples, or why there is none to look at."""
    told: Sampled | None = zoo.facts.sampled
    if told is None:
        return "its networks were not drawn by a generator", None
    path = material.root / "runs" / told.generator
    if not Generator.is_whole(path):
        return f"the generator {told.generator} is not there any more", None
    generator = Generator.load(path)
    if generator.digest != told.digest:
        return f"{told.generator} has been fitted anew since they were drawn", None
    if generator.density.config.solver is None:
        words = generator.density.config.words
        return f"the density {words} draws at once, so that nothing lies on the way", None
    if told.head is not None:
        return "its networks were given a new head after they were drawn", None
    return "", generator.of_zoo(told.zoo)


def _follow(material: Material, generator: Generator, zoo: Zoo) -> dict[str, Json]:
    """Return the accuracies of networks at each of `LOOKS`."""
    told = zoo.facts.sampled
    how = {"method": told.solver, "steps": told.steps}
    how = {name: value for name, value in how.items() if value is not None}
    if told.condition is not None:
        condition, guidance = again(told.condition, told.guidance)
        how |= {"condition": condition, "guidance": guidance}
    if told.temperature is not None:
        how["temperature"] = told.temperature
    if told.autoguidance is not None:
        how["autoguidance"] = told.autoguidance
    count = min(len(zoo), MOST_NETWORKS)
    step = max(1, generator.block_size // len(LOOKS))
    parts: list[list[np.ndarray]] = [[] for _ in LOOKS]
    for first in range(0, count, step):
        num = min(step, count - first)
        draw = partial(generator.sample, num, told.seed, first=first, **how)
        for part, weights_BD in zip(parts, on_the_way(draw, generator.decode), strict=True):
            part.append(material.accuracy_of(weights_BD.numpy()))
    accuracies = [np.concatenate(part) for part in parts]
    return {
        "n": count,
        "looks": list(LOOKS),
        "accuracy": [statistics(accuracy_S) for accuracy_S in accuracies],
        "networks": [accuracy_S.tolist() for accuracy_S in accuracies],
    }


def _curves(material: Material, numbers: dict[str, Json], width: Width) -> Figure:
    figure, (axes,) = panels(width, height=2.7)
    for i, (title, found) in enumerate(numbers.items()):
        accuracy_LS = 100 * np.array(found["networks"])
        low_L, middle_L, high_L = np.quantile(accuracy_LS, (0.1, 0.5, 0.9), axis=1)
        colour, marker = SAMPLE_COLOURS[i % 4], SAMPLE_MARKERS[i % 4]
        axes.plot(LOOKS, middle_L, color=colour, marker=marker, label=title)
        axes.fill_between(LOOKS, low_L, high_L, color=colour, alpha=0.2, linewidth=0)
    originals = material.report.of("originals")[0]
    mean = 100 * originals.accuracy["mean"]
    axes.axhline(mean, color="#777777", linestyle=":", linewidth=1, label=originals.title)
    axes.set_xlabel("share of the way from noise to the network\n(band: 10 to 90 % of networks)")
    axes.set_ylabel(f"{material.split} accuracy (%)")
    legend_below(figure, axes, width=width)
    return figure
