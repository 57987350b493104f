"""A permutation specification: which axes of which tensors are reordered together.

YAML, tensor -> a list with a group's name or null for each axis:

    fc1.weight: [hidden, null]
    fc1.bias: [hidden]
    fc2.weight: [null, hidden]
    fc2.bias: [null]
"""

from pathlib import Path

from dwf.errors import ConfigError
from dwf.settings import read_yaml
from dwf.zoo.layout import Layout

Permutations = dict[str, tuple[str | None, ...]]


def read_permutations(file: Path, layout: Layout) -> Permutations:
    """Return a specification that fits a layout.

    Args:
        file: the YAML file.
        layout: of the networks; tensors that the file leaves out are not reordered.

    Raises:
        ConfigError: it names a tensor that is not there, another number of axes than a tensor has,
            or a group whose axes differ in length.
    """
    told: Permutations = {}
    sizes: dict[str, tuple[int, str]] = {}
    for name, groups in read_yaml(file).items():
        entry = layout.by_name.get(name)
        if entry is None:
            raise ConfigError(
                f"{file}: {name} is no tensor of these networks, which have "
                f"{', '.join(list(layout.by_name)[:8])}"
            )
        if not isinstance(groups, list) or len(groups) != len(entry.shape):
            raise ConfigError(
                f"{file}: {name} = {groups!r}: it has shape {list(entry.shape)}, so a list of "
                f"{len(entry.shape)} groups or nulls is expected"
            )
        for axis, group in enumerate(groups):
            if group is None:
                continue
            size, first = sizes.setdefault(str(group), (entry.shape[axis], f"{name}[{axis}]"))
            if size != entry.shape[axis]:
                raise ConfigError(
                    f"{file}: group {group} has {size} units in {first} and {entry.shape[axis]} in "
                    f"{name}[{axis}]: the axes of a group are equally long"
                )
        told[name] = tuple(None if group is None else str(group) for group in groups)
    return told
