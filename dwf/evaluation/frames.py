"""Frames of zoos: whether samples can be held against one, and the zoo as it was before."""

from collections.abc import Sequence

from dwf.errors import ConfigError
from dwf.generators.learning import origin_facts
from dwf.zoo.store import Zoo


def open_unaligned(zoo: Zoo, *, wanted_by: str) -> Zoo | None:
    """Return the zoo that a zoo was aligned from, which lies beside it; None of one that was not.

    Args:
        zoo: any zoo.
        wanted_by: the setting that asks for it, for an error.

    Raises:
        ConfigError: it is not there, or has other networks by now.
    """
    aligned = zoo.facts.aligned
    if aligned is None:
        return None
    zoos = next((one for one in zoo.path.parents if one.name == "zoos"), zoo.path.parent)
    path = zoos / aligned.aligned_from
    found = Zoo.open(path).fingerprint if path.exists() else "no zoo"
    if found != aligned.fingerprint:
        raise ConfigError(
            f"{wanted_by} takes the zoo that {zoo.name} was aligned from, {path} with "
            f"fingerprint {aligned.fingerprint}; there is {found}: leave {wanted_by} out"
        )
    return Zoo.open(path)


def refuse_other_frame(zoo: Zoo, samples: Sequence[Zoo]) -> None:
    """Raise where samples were learnt from another zoo, or in another frame.

    In another frame than that of its training networks every near-copy looks new. Samples of widths
    that their generator learnt from no zoo of stand beside any zoo of these widths.

    Raises:
        ConfigError: names the samples, and the zoo that they were learnt from.
    """
    expected = origin_facts(zoo, seed=0)["fingerprint"]
    for each in samples:
        sampled = each.facts.sampled
        if sampled is None or sampled.zoo_fingerprint == expected:
            continue
        if sampled.is_of_unseen_widths and each.layout.digest == zoo.layout.digest:
            continue
        if sampled.architecture is not None:
            raise ConfigError(
                f"zoo = {zoo.name!r}: the generator of {each.name} learnt from {sampled.zoo!r}, "
                "networks of another architecture, so no zoo tells how new these are: train them "
                f"further beside this zoo's, by dwf finetune --zoo {zoo.name} --samples "
                f"{each.name}"
            )
        if zoo.name in sampled.learnt_from:
            own = sampled.zoo
            raise ConfigError(
                f"zoo = {zoo.name!r}: the networks of {each.name} are drawn for {own!r}, "
                f"another of the zoos that their generator learnt from: evaluate them "
                f"against that one, with --zoo {own}"
            )
        raise ConfigError(
            f"zoo = {zoo.name!r}: the generator of {each.name} learnt from "
            f"{sampled.zoo!r} of fingerprint {sampled.zoo_fingerprint}, this "
            f"zoo has {expected}: evaluate samples against the zoo they were learnt from"
        )


def unseen_notes(samples: Sequence[Zoo]) -> list[str]:
    """Return a sentence on each zoo of samples whose generator saw no networks of their widths."""
    return [
        f"The generator of {each.name} learnt from no networks of these widths, so it could not "
        "copy this zoo's: novelty is told against networks that it has not seen."
        for each in samples
        if each.facts.sampled is not None and each.facts.sampled.is_of_unseen_widths
    ]
