"""Settings made in Python: wrong types are refused, help tells fields; against types by hand."""

import dataclasses
import pydoc
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dwf.checked import Checked
from dwf.errors import ConfigError
from dwf.loading import CLASSES
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.settings import Bounds, build, find
from dwf.settings.texts import field_texts
from dwf.zoo.config import RecipeConfig, SplitConfig, VaryConfig, ZooConfig
from dwf.zoo.family_config import FamilyConfig


@dataclass(frozen=True)
class Part(Checked):
    """A part."""

    kind: Literal["big", "small"] = "big"
    """Kind of the part,
    in two lines."""


@dataclass(frozen=True)
class Whole(Part):
    """A whole."""

    rate: typing.Annotated[float, Bounds(0)] = 0.5
    """Rate."""
    count: int | None = None
    """Count."""
    names: tuple[str, ...] = ()
    """Names."""
    part: Part | None = None
    """Part."""
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    where: Path = Path("here")
    """Place."""
    flag: bool = False
    """Flag."""

    def __post_init__(self):
        if self.count is not None and self.count + 1 < 0:
            raise ValueError("count: a rule of the class")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rate", "0.5", r"Whole.rate = '0.5': expected float, found str"),
        ("rate", True, "Whole.rate = True: expected float, found bool"),
        ("count", "3", "Whole.count = '3': expected int or None, found str"),
        ("count", 3.0, r"Whole.count = 3.0: expected int or None, found float"),
        ("names", "abc", "Whole.names = 'abc': expected a list of str, found str"),
        ("names", ("a", 1), r"Whole.names\[1\] = 1: expected str, found int"),
        ("part", {"kind": "big"}, "expected Part or None, found dict"),
        ("table", {"a": "b"}, r"Whole.table.a = 'b': expected int, found str"),
        ("where", 3, "Whole.where = 3: expected Path, found int"),
        ("flag", 1, "Whole.flag = 1: expected bool, found int"),
        ("flag", None, "Whole.flag = None: expected bool, found NoneType"),
        ("kind", "bgi", "Whole.kind = 'bgi': expected one of big, small; did you mean 'big'?"),
    ],
)
def test_a_wrong_type_is_refused(name, value, said):
    with pytest.raises(ConfigError, match=said):
        Whole(**{name: value})


def test_what_means_the_same_is_taken():
    made = Whole(rate=np.float64(1), count=np.int64(2), names=["a"], where="there", part=Part())
    assert made == Whole(rate=1, count=2, names=("a",), where=Path("there"), part=Part())
    assert (type(made.rate), type(made.count), type(made.names)) == (float, int, tuple)
    assert dataclasses.replace(made, rate=2).rate == 2.0


def test_types_are_held_before_rules_between_settings():
    with pytest.raises(ConfigError, match="expected int or None"):
        Whole(count=[1])
    with pytest.raises(ValueError, match="a rule of the class"):
        Whole(count=-5)


def test_settings_of_a_zoo_are_held_to_their_types():
    network = MLPConfig(widths=[4, 16, 3])
    assert network.widths == (4, 16, 3) and hash(network)
    with pytest.raises(ConfigError, match=r"RecipeConfig.epochs = '5': expected int, found str"):
        RecipeConfig(epochs="5")
    with pytest.raises(ConfigError, match=r"RecipeConfig.optimizer = 'adm': .*did you mean 'adam'"):
        RecipeConfig(optimizer="adm")
    with pytest.raises(ConfigError, match=r"ZooConfig.data = 'iris': expected .*DataConfig or "):
        ZooConfig(network=network, data="iris", count=3)
    with pytest.raises(ConfigError, match=r"VaryConfig.learning_rate\[1\] = 'x': expected float"):
        VaryConfig(learning_rate=(0.1, "x"))


def parts_of(hint: object, found: set[type]) -> set[type]:
    """Every dataclass in a type, and in the fields of these."""
    if dataclasses.is_dataclass(hint) and hint not in found:
        found.add(hint)
        fields = {field.name for field in dataclasses.fields(hint)}
        hints = typing.get_type_hints(hint, include_extras=True)
        for name in fields:
            parts_of(hints[name], found)
    inner = typing.get_args(hint)
    for one in inner[:1] if typing.get_origin(hint) is typing.Annotated else inner:
        parts_of(one, found)
    return found


def all_settings() -> set[type]:
    found = parts_of(FamilyConfig, set())
    for stage in CLASSES:
        parts_of(find(CLASSES, stage), found)
    return found


def test_every_class_of_settings_is_held_to_its_types():
    found = all_settings()
    assert len(found) > 100 and {ZooConfig, CNNConfig} <= found
    assert not [cls for cls in found if not issubclass(cls, Checked)]


def test_help_tells_every_field_of_every_class_of_settings():
    for cls in all_settings():
        texts = field_texts(cls)
        names = {field.name for field in dataclasses.fields(cls)}
        assert set(texts) == names, f"{cls.__name__}: no text under {names - set(texts)}"
        assert all(text in " ".join(cls.__doc__.split()) for text in map(flat, texts.values()))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_help_shows_the_text_under_each_field():
    shown = pydoc.render_doc(SplitConfig, renderer=pydoc.plaintext)
    assert "Shares of the networks that generators never learn from." in shown
    assert "val: Share of the networks held out for choices." in shown
    assert Whole.__doc__ == (
        "A whole.\n\nAttributes:\n    kind: Kind of the part,\n    in two lines.\n    rate: Rate.\n"
        "    count: Count.\n    names: Names.\n    part: Part.\n    where: Place.\n    flag: Flag."
    )


def test_data_from_a_file_are_refused_as_before():
    with pytest.raises(ConfigError, match=r"^f.yaml: rate = 'x': expected float, found str"):
        build(Whole, {"rate": "x"}, source="f.yaml")
    assert build(Whole, {"rate": "3e-4"}, source="f.yaml").rate == 3e-4
