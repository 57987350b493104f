"""Codes gathered block by block, in memory or on disk."""

import gc
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.codecs import codes as module
from dwf.codecs.codes import Codes, CodeShape, gather, join
from dwf.codecs.config import FlatConfig
from dwf.codecs.flat import FlatCodec
from dwf.errors import ShapeMismatch

POSITIONS = torch.tensor([(0, 0, 0), (1, 0, 1), (2, 1, 0)])
MASK = torch.tensor([[True, True], [True, True], [True, False]])


def blocks(sizes=(3, 1, 4)):
    generator = torch.Generator().manual_seed(0)
    shape = CodeShape.sequences("a", POSITIONS, mask=MASK)
    return [Codes(torch.randn(size, 3, 2, generator=generator) * MASK, shape) for size in sizes]


def test_codes_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    wanted = torch.cat([block.values for block in blocks()])
    file = tmp_path / "codes" / "train.npy"
    held = gather(iter(blocks()), 8, file=file)
    assert not list(tmp_path.iterdir()) and not held.is_mapped
    monkeypatch.setattr(module, "MOST_HELD", 0)
    mapped = gather(iter(blocks()), 8, file=file)
    assert mapped.is_mapped and mapped.take(slice(2, 5)).is_mapped
    assert not mapped.take(torch.tensor([1, 1])).is_mapped
    for codes in (held, mapped, gather(iter(blocks()), 8)):
        assert torch.equal(codes.values, wanted) and codes.shape.layout == "a"
        assert codes.shape.positions is not None and torch.equal(codes.shape.mask, MASK)
    assert torch.equal(torch.from_numpy(np.load(file)), wanted) and list_of(file.parent) == [file]
    assert torch.equal(torch.cat([*mapped.columns(2)], dim=1), mapped.flatten())
    mapped.values[2] = 7  # as of any tensor, and nothing else sees it
    assert (mapped.values[2] == 7).all() and torch.equal(mapped.values[3:], wanted[3:])


def list_of(folder):
    return sorted(folder.iterdir())


def mapped_anonymous() -> int:
    """Anonymous memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def test_codes_on_disk_take_no_anonymous_memory(tmp_path):
    num_bytes, block = 300 * 2**20, torch.ones(1, 2**20)
    count = num_bytes // (4 * 2**20)
    before = mapped_anonymous()
    codes = gather(
        (Codes(block * i, CodeShape.vectors("a", 2**20)) for i in range(count)),
        count,
        file=tmp_path / "train.npy",
    )
    assert codes.values[:, 5].tolist() == list(range(count))
    assert mapped_anonymous() - before < num_bytes / 8


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = (Codes(torch.zeros(1, 2**20), CodeShape.vectors("a", 2**20)) for _ in range(4))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            gather(many, 4, file=tmp_path / "train.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        gc.collect()
    assert not list_of(tmp_path)  # what was written is swept


def test_blocks_of_several_layouts_are_refused():
    first, second, _ = blocks()
    with pytest.raises(ShapeMismatch, match="layout b cannot stand with those of layout a"):
        gather([first, replace(second, shape=replace(second.shape, layouts=("b",)))], 4)


def test_like_tokens_of_a_layer_stand_together():
    """Rows of three numbers, cut into tokens of two: full tokens and rests in turn."""
    layer_T, full = torch.tensor([0, 0, 0, 0, 1, 1]), [True, True]
    mask = torch.tensor([full, [True, False]] * 3)
    mask[4:] = True
    positions = torch.stack([torch.arange(6), layer_T, torch.arange(6) // 2], 1)
    values = torch.arange(24.0).view(2, 6, 2) * mask
    codes = Codes(values, CodeShape.sequences("a", positions, mask=mask))
    assert codes.shape.sections == ((2, 2), (2, 1), (2, 2))
    assert codes.flatten()[0].tolist() == [0, 1, 4, 5, 2, 6, 8, 9, 10, 11]
    assert torch.equal(codes.shape.fill(codes.flatten()).values, values)
    # Layer, unit, which of the unit's tokens: in the order of the sections, the rests behind.
    wanted = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 2, 0), (1, 2, 1)]
    assert codes.shape.places() == wanted and codes.shape.num_layers == 2
    parts = codes.flatten().split([count * width for count, width in codes.shape.sections], 1)
    assert parts[1].tolist() == [[2, 6], [14, 18]]  # what is split by sections is tokens


def test_without_padding_flattening_copies_nothing():
    padded = blocks()[0]
    assert torch.equal(padded.flatten(), padded.values.flatten(1)[:, :5])
    assert torch.equal(padded.shape.fill(padded.flatten()).values, padded.values)
    every = torch.ones(3, 2, dtype=torch.bool)
    whole = Codes(padded.values, CodeShape.sequences("a", POSITIONS, mask=every))
    assert torch.equal(whole.flatten(), padded.values.flatten(1))
    assert whole.flatten().data_ptr() == padded.values.data_ptr()


def test_a_zoo_of_several_shards_is_encoded_block_by_block(plant_zoo, run, monkeypatch):
    zoo = plant_zoo(num_shards=2)
    sources = [(zoo, zoo.rows(split="train")), (zoo, zoo.rows(split="test"))]
    codec = FlatCodec(FlatConfig()).fit(sources, [], run=run)
    wanted = [codec.encode(torch.from_numpy(zoo.read(rows)), zoo.layout) for _, rows in sources]
    monkeypatch.setattr(module, "MOST_HELD", 0)
    found = codec.encode_zoo(sources, run.path / "train.npy")
    assert torch.equal(found.values, torch.cat([codes.values for codes in wanted]))
    none = codec.encode_zoo([(zoo, zoo.rows(split="train")[:0])], run.path / "val.npy")
    assert none.values.shape == (0, zoo.layout.size)


MASKS = torch.tensor(
    [
        [[True, True, True], [True, True, True], [True, False, False]],
        [[True, False, True], [False, False, False], [True, False, False]],
    ]
)
"""Two units and the output's bias; the second architecture has one unit, of fewer inputs."""


def mixed(kinds=(0, 1, 1, 0), seed=0):
    kind_N = torch.tensor(kinds)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(kinds), 3, 3, generator=generator) * MASKS[kind_N]
    positions = torch.tensor([(0, 0, 0), (1, 0, 1), (2, 1, 0)])
    return Codes(values, CodeShape.sequences("ab", positions, mask=MASKS), kind_N=kind_N)


def test_mixed_codes_speak_of_the_union():
    codes = mixed()
    assert codes.shape.size == 7 and codes.shape.sections == ((2, 3), (1, 1))
    assert codes.shape.present_AK.tolist() == [
        [True] * 7,
        [True, False, True] + 3 * [False] + [True],
    ]
    flat = codes.flatten()
    assert flat.shape == (4, 7) and not flat[~codes.shape.present_AK[codes.kind_N]].any()
    assert torch.equal(codes.shape.fill(flat, codes.kind_N).values, codes.values)
    assert blocks()[0].shape.present_AK is None


def test_what_an_architecture_does_not_have_is_refilled_with_zeros():
    drawn = torch.full((5, 7), torch.nan)  # what a density may leave there
    kind_N = torch.tensor([1, 1, 0, 1, 1])
    present = mixed().shape.present_AK[kind_N]
    drawn[present] = 1.0
    filled = mixed().shape.fill(drawn, kind_N)
    assert torch.equal(filled.values, MASKS[kind_N].float())
    assert torch.equal(filled.flatten(), present.float())
    with pytest.raises(ShapeMismatch, match=r"5 codes of several architectures with 4 numbers"):
        mixed().shape.fill(drawn, mixed().kind_N)


def test_mixed_codes_are_cut_and_joined_with_their_kinds(tmp_path, monkeypatch):
    codes = mixed()
    for file in (None, tmp_path / "train.npy"):
        back = join([codes.take(slice(0, 1)), codes.take(torch.tensor([1, 2, 3]))], file)
        assert torch.equal(back.values, codes.values) and torch.equal(back.kind_N, codes.kind_N)
        monkeypatch.setattr(module, "MOST_HELD", 0)
    none = codes.take(slice(0))
    assert len(none) == 0 and none.kind_N.shape == (0,) and none.shape.size == codes.shape.size
    with pytest.raises(ShapeMismatch, match="4 codes of several architectures with 2 numbers"):
        replace(codes, kind_N=codes.kind_N[:2])
    with pytest.raises(ShapeMismatch, match=r"cannot stand with.*more_zoos"):
        join([codes, replace(codes, shape=replace(codes.shape, layouts=("a", "c")))])
    assert torch.equal(blocks()[0].take(slice(1, 2)).values, blocks()[0].values[1:2])


def test_shapes_are_equal_where_all_that_they_say_is():
    shape = CodeShape.sequences("ab", POSITIONS, mask=MASKS)
    again = CodeShape.sequences(["a", "b"], POSITIONS.clone(), mask=MASKS.clone())
    assert shape == again == mixed().shape and hash(shape) == hash(again)
    others = [
        CodeShape.sequences("ac", POSITIONS, mask=MASKS),
        CodeShape.sequences("ab", POSITIONS, mask=MASKS.flip(0)),
        CodeShape.sequences("ab", POSITIONS + 1, mask=MASKS),
        CodeShape.sequences("a", POSITIONS, mask=MASKS[0]),
        CodeShape.vectors("a", 7),
    ]
    assert all(shape != other for other in others) and shape != "shape"
    assert CodeShape.vectors("a", 7) == CodeShape.vectors("a", 7) != CodeShape.vectors("a", 8)


def test_codes_of_another_shape_are_no_codes():
    with pytest.raises(ShapeMismatch, match=r"codes of shape \[2, 3\] are not.* of 4 numbers"):
        Codes(torch.zeros(2, 3), CodeShape.vectors("a", 4))
    with pytest.raises(ShapeMismatch, match=r"codes of shape \[2, 7\] .* of 3 x 3 numbers"):
        Codes(torch.zeros(2, 7), mixed().shape, kind_N=torch.zeros(2))
    with pytest.raises(ShapeMismatch, match="2 codes of several architectures with 0 numbers"):
        Codes(torch.zeros(2, 3, 3), mixed().shape)


def test_vectors_have_no_places():
    shape = CodeShape.vectors("a", 4)
    assert shape.places() == [] and shape.num_layers == 0


def test_the_codes_of_no_network_have_the_shape():
    for codes in (mixed(), blocks()[0], Codes(torch.zeros(1, 4), CodeShape.vectors("a", 4))):
        none = codes.shape.empty()
        assert len(none) == 0 and none.shape is codes.shape
        assert none.values.shape[1:] == codes.values.shape[1:]
        assert torch.equal(join([none, codes]).values, codes.values)
