"""Messages of ranks: what is packed comes back equal, and nothing in one is executed."""

import io
import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.align.groups import Group, Member
from dwf.checked import Checked
from dwf.codecs.codes import Codes, CodeShape
from dwf.errors import ConfigError, TrainingDiverged
from dwf.messages import pack, sendable, unpack
from dwf.zoo.moments import Moments


@dataclass(frozen=True)
class OwnConfig(Checked):
    """Settings of a user's own kind."""

    width: int = 3


@dataclass(frozen=True)
class Foreign:
    """No settings, and not dwf's."""

    width: int = 3


VALUES = [
    OwnConfig(5),
    None,
    True,
    -(2**70),
    0.1,
    math.inf,
    "é\n\x00\U0001f600",
    b"\x00\xff",
    [],
    [1, [2.5, "x"], (3, {4}), frozenset({5})],
    {1: "one", (2, "b"): [None], None: {}},
    Path("a b/c"),
    range(2, 9, 3),
    Group(4, (Member("w", 0), Member("b", 0)), "units"),
]
ARRAYS = [
    np.arange(7, dtype="<i2"),
    np.zeros((0, 3)),
    np.asfortranarray(np.random.default_rng(0).standard_normal((3, 4))),
    np.array(2.5),
    np.array([True, False]),
    np.array(["a", "bcd"]),
    np.float32(1.1),
    np.int64(-3),
    np.array([1 + 2j]),
]
TENSORS = [
    torch.arange(5, dtype=torch.int64),
    torch.tensor(0.1, dtype=torch.bfloat16),
    torch.zeros(0, 2),
    torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T,
    torch.tensor([True, False]),
]


def again(value):
    return unpack(bytearray(pack(value)))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_as_they_were(value):
    assert again(value) == value and type(again(value)) is type(value)


@pytest.mark.parametrize("value", ARRAYS, ids=repr)
def test_arrays_come_back_with_their_bytes(value):
    got = again([b"odd", value])[1]
    assert type(got) is type(value) and got.dtype == value.dtype and got.shape == value.shape
    assert got.tobytes() == value.tobytes() and np.isfortran(got) == np.isfortran(value)


@pytest.mark.parametrize("value", TENSORS, ids=repr)
def test_tensors_come_back_with_their_bytes(value):
    got = again({"weights": value})["weights"]
    assert got.dtype == value.dtype and torch.equal(got, value)
    assert got.stride() == value.stride()  # the last bit of a product depends on it
    got += got  # it may be written to
    assert math.isnan(again(math.nan))


def test_what_ranks_share_of_codecs_and_zoos_comes_back():
    codes = Codes(torch.ones(2, 3), CodeShape.vectors("digest", 3))
    got = again(codes)
    assert torch.equal(got.values, codes.values) and got.shape.of_code == codes.shape.of_code
    moments = Moments()
    moments.add(np.arange(6.0).reshape(2, 3))
    got = again(moments)
    assert got.num_networks == 2 and np.array_equal(got.variance_D, moments.variance_D)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("lines\nof words"),
        TrainingDiverged(),
        KeyError("b"),
        FileNotFoundError(2, "No such file", "a/b"),
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_errors_keep_their_class_and_words(error):
    got = again(error)
    assert sendable(error) is error and type(got) is type(error) and str(got) == str(error)


def test_an_error_that_cannot_be_sent_is_told_in_words():
    for error in (json.JSONDecodeError("bad", "x", 0), ConfigError(object()), Odd(1, 2)):
        told = sendable(error)
        assert type(told) is RuntimeError and str(told) == f"{type(error).__name__}: {error}"


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")


class Runs:
    def __reduce__(self):
        return (print, ("it ran",))


def test_what_is_of_another_kind_is_refused_where_it_is_sent():
    for value in (Runs(), print, Path, io.StringIO(), np.array([None]), lambda: 0):
        with pytest.raises(TypeError, match="ranks tell each other no"):
            pack([value])


@pytest.mark.parametrize(
    "told",
    [
        ["record", "os", "system", {"command": "touch ran"}],
        ["record", "subprocess", "Popen", {"args": "touch ran"}],
        ["record", "dwf.messages", "Path", {}],
        ["record", "dwf.messages", "pack", {"value": 1}],
        ["record", "dwfx", "a", {}],
        ["error", "builtins", "print", ["tuple", ["it ran"]]],
        ["error", "builtins", "eval", ["tuple", ["1/0"]]],
        ["error", "os", "system", ["tuple", ["touch ran"]]],
        ["array", "|O8", [1], "C", 0],
        ["array", "<f8", [10**9], "C", 0],
        ["array", "<f8", [-1], "C", 0],
        ["tensor", "nn", [1], [0], 0],
        ["tensor", "float32", [10**9], [0], 0],
        ["bytes", 7],
        ["unknown"],
        [],
        {"a": 1},
    ],
    ids=str,
)
def test_a_forged_message_runs_nothing(told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    head = json.dumps([told, [8]]).encode()
    message = len(head).to_bytes(8, "big") + head
    message += bytes(-len(message) % 16) + bytes(16)
    with pytest.raises(ValueError, match="ranks were told what no rank says"):
        unpack(bytearray(message))
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "message",
    [b"", bytes(8), b"\xff" * 64, pickle.dumps(Runs()), bytes(7) + b"\x02" + b"[" * 40_000],
    ids=lambda message: str(message[:8]),
)
def test_bytes_that_are_no_message_are_refused(message, capsys):
    with pytest.raises(ValueError, match="ranks were told what no rank says"):
        unpack(bytearray(message))
    deep = b"[" * 100_000
    with pytest.raises(ValueError, match="ranks were told"):
        unpack(bytearray(len(deep).to_bytes(8, "big") + deep))
    assert capsys.readouterr().out == ""
