"""Codes on a disk."""

import pytest

from dwf.codecs import codes as codes_module
from dwf.codecs.codes import gather


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """What puts codes on the disk."""

    def put(codes, name="train"):
        with monkeypatch.context() as patch:
            patch.setattr(codes_module, "MOST_HELD", 0)
            return gather([codes], len(codes), file=tmp_path / f"{name}.npy")

    return put
