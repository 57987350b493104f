"""Short titles of samples in a report: what the user calls them, or what drew them.

A zoo of samples is named after pipeline, generator and seed; in a table the generator's own words
say more in less.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dwf.errors import ConfigError, DwfError
from dwf.generators.config import GeneratorConfig
from dwf.settings import build, read_yaml
from dwf.zoo.store import Zoo


def titles_of(
    samples: Sequence[Zoo], *, label: Sequence[str] = (), root: Path | None = None
) -> dict[str, str]:
    """Return name of a zoo of samples -> its title, no two the same.

    Without labels it is what the generator is, as `flow over neuron tokens`, and in brackets what
    tells the names of several of one kind apart. Networks without a generator below the root keep
    their name.

    Args:
        samples: in the order of the report.
        label: titles that the user gives them, in the same order; empty: none.
        root: folder that holds runs/; None: names are titles.

    Raises:
        ConfigError: there are not as many labels as samples, or two are the same.
    """
    names = [each.name for each in samples]
    if label:
        if len(label) != len(names) or len(set(label)) < len(label):
            raise ConfigError(
                f"label = {list(label)}: {len(names)} sets of samples ({', '.join(names)}) have a "
                "title each, all of them different: give as many, in their order"
            )
        return dict(zip(names, label, strict=True))
    words = {each.name: generator_title(root, each) or each.name for each in samples}
    alike: dict[str, list[str]] = {}
    for name, said in words.items():
        alike.setdefault(said, []).append(name)
    return {name: _apart(name, words[name], alike) for name in names}


def generator_title(root: Path | None, samples: Zoo) -> str | None:
    """Return in words what drew samples; None where their generator is not below the root."""
    drawn = samples.facts.sampled
    file = None if root is None or drawn is None else root / "runs" / drawn.generator
    if file is None or not (file / "config.yaml").exists():
        return None
    try:
        said = read_yaml(file / "config.yaml")
        return build(GeneratorConfig, said, source=str(file)).title
    except DwfError:  # a generator of another version still has its name
        return None


def _apart(name: str, words: str, alike: Mapping[str, list[str]]) -> str:
    if len(alike[words]) == 1:
        return words
    told = [each.split("-") for each in alike[words]]
    mine, shortest = name.split("-"), min(map(len, told))
    first = next((i for i in range(shortest) if len({each[i] for each in told}) > 1), shortest)
    left = shortest - first
    last = next((i for i in range(left) if len({each[-1 - i] for each in told}) > 1), left)
    part = "-".join(mine[first : len(mine) - last])
    return f"{words} ({part or name})"
