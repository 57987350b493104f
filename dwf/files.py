"""Readers of files that any hand may have written: one for each format, which believes nothing.

Each refuses what is no regular file (a pipe or a device would never end), holds what a file claims
of its size to the bytes that it has, runs no code, and tells whatever is wrong as one `DwfError`.
What the system says (no such file, no permission) passes as it is. No torch is imported here.
"""

import contextlib
import errno
import gzip
import json
import math
import os
import pickle
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dwf.errors import CorruptCheckpoint, DwfError
from dwf.plain import Json

if TYPE_CHECKING:
    import h5py
    import numpy as np

CURE = "remove it and give the command again"
MOST_INTEGER = 2**63
"""Bound of whole numbers, which 64 bits hold with a sign."""
NO_CODE = "it holds pickled objects, which would run code and are never read"
_MOST_DIGITS = 20  # of 64 bits, with the sign
_WRONG = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError,
)  # fmt: skip
DAMAGED = (
    ValueError, KeyError, TypeError, EOFError, SyntaxError, NotImplementedError, MemoryError,
    OverflowError, RecursionError, RuntimeError, zipfile.BadZipFile, zlib.error,
    pickle.UnpicklingError, tokenize.TokenError,
)  # fmt: skip
"""Errors that NumPy raises of bytes that are altered, encrypted, or claim more than they are."""
_MOST_PACKED = 200  # what one byte of an honest file becomes, far more than of any seen
_SMALL = 64 * 2**20  # bytes that are unpacked whatever they were packed to
_BLOCK = 2**20
_OTHER_KIND = (errno.ELOOP, errno.ENXIO, errno.EISDIR)
_SHOWN = 200  # characters of an error
_KINDS = {dict: "`key: value` pairs", list: "a list", str: "a word", int: "a whole number"}


def refuse_irregular(path: Path) -> None:
    """Raise where a path leads to a pipe, a device or a folder instead of a file.

    Raises:
        DwfError: it does; names what it is.
        OSError: it leads nowhere, or cannot be looked at.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise DwfError(f"{path} is a folder, a file is expected")
    raise DwfError(f"{path} is a pipe, socket or device, and would never end: give a file")


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        DwfError: see `refuse_irregular`.
    """
    refuse_irregular(path)
    return Path(path).read_bytes()


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        DwfError: it is in another encoding; or see `refuse_irregular`.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise DwfError(f"{path} is no text in UTF-8 ({error})") from None


def open_own(path: Path, mode: str) -> IO[str]:
    """Open a text file of dwf's own, as a lock or a log: no link leads to another file.

    Whoever passes a folder on could else have lines added to any file of its next user.

    Args:
        path: the file.
        mode: `r`, `a` or `a+`, as of `open`.

    Raises:
        DwfError: a link, pipe, device or folder lies in its place.
        OSError: it cannot be opened.
    """
    try:
        return open(path, mode, encoding="utf-8", opener=_open_regular)
    except OSError as error:
        if error.errno not in _OTHER_KIND:
            raise
        raise _no_own_file(path) from None


def _open_regular(path: str, flags: int) -> int:
    number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _no_own_file(path)
    return number


def _no_own_file(path: Path | str) -> DwfError:
    return DwfError(f"{path} is a link, pipe, device or folder, dwf's own file is expected: {CURE}")


# --- JSON ----------------------------------------------------------------------------------------


def read_json(
    path: Path,
    of: type = dict,
    *,
    keys: Collection[str] = (),
    cure: str = CURE,
    error: type[DwfError] = CorruptCheckpoint,
    is_finite: bool = True,
) -> Any:
    """Return what a JSON file holds.

    Args:
        path: the file.
        of: type of the whole.
        keys: keys that the mapping must have.
        cure: what to do about another, for the error.
        error: class of the error.
        is_finite: whether NaN and infinity, which JSON does not have, are refused; Python's own
            writer, which other tools use, writes them.

    Raises:
        error: it is empty, cut short, nested without end, of another type, lacks a key or has one
            twice.
        DwfError: see `refuse_irregular`.
    """
    content = read_bytes(path)
    return parse_json(content, path, of=of, keys=keys, cure=cure, error=error, is_finite=is_finite)


def parse_json(
    content: bytes | str,
    path: object,
    *,
    of: type = dict,
    keys: Collection[str] = (),
    cure: str = CURE,
    error: type[DwfError] = CorruptCheckpoint,
    is_finite: bool = True,
) -> Any:
    """Return what JSON says that stands in a file; see `read_json`."""
    try:
        numbers = {"parse_float": _finite, "parse_constant": _finite} if is_finite else {}
        told: Json = json.loads(content, parse_int=_whole, object_pairs_hook=_each_once, **numbers)
    except RecursionError:
        raise error(f"{path} is damaged (nested too deeply): {cure}") from None
    except ValueError as why:
        raise error(f"{path} is damaged ({why}): {cure}") from None
    if not isinstance(told, of):
        found = type(told).__name__
        raise error(f"{path} holds {found}, {_KINDS.get(of, of.__name__)} are expected: {cure}")
    for key in keys:
        if key not in told:
            raise error(f"{path} lacks {key}: {cure}")
    return told


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= _MOST_DIGITS else MOST_INTEGER
    if not -MOST_INTEGER <= number < MOST_INTEGER:
        raise ValueError("a whole number of more than 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:_SHOWN]}, which is no number of JSON")
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs as a mapping; readers differ in which of two equal keys they take."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:_SHOWN]!r} twice")
        found[key] = value
    return found


def _reason(error: BaseException) -> str:
    """Return what an error says, as far as a line holds it."""
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__


@contextlib.contextmanager
def told_by(
    path: object, *, cure: str = CURE, error: type[DwfError] = CorruptCheckpoint
) -> Iterator[None]:
    """Within the block what a file told is taken apart: what is not there is the file's fault.

    Args:
        path: the file.
        cure: what to do about it, for the error.
        error: class of the error.

    Raises:
        error: a key is missing, or a value is of another type.
    """
    try:
        yield
    except _WRONG as why:
        missing = f"lacks {why.args[0]}" if type(why) is KeyError and why.args else None
        reason = missing or f"is not as dwf writes it ({_reason(why)})"
        raise error(f"{path} {reason}: {cure}") from None


# --- arrays --------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading_arrays(path: Path, *, cure: str = CURE) -> Iterator[None]:
    """Within the block NumPy reads a file; nothing in the file is executed.

    Raises:
        CorruptCheckpoint: the file is truncated or altered, holds pickles, or claims to be larger
            than its bytes can be.
        DwfError: see `refuse_irregular`.
    """
    try:
        refuse_irregular(path)
        refuse_bomb(path)
        yield
    except DAMAGED as error:
        is_code = any(word in str(error) for word in ("pickle", "Object arrays", "Python objects"))
        reason = NO_CODE if is_code else _reason(error)
        raise CorruptCheckpoint(f"{path} is damaged ({reason}): {cure}") from None


def read_array(path: Path, mode: str | None = None) -> "np.ndarray":
    """Return the array of a .npy file.

    Args:
        path: the file.
        mode: how it is mapped, as of `numpy.memmap`; None: it is read.

    Raises:
        CorruptCheckpoint, DwfError: see `reading_arrays`.
    """
    import numpy as np

    with reading_arrays(path):
        return np.load(path, mmap_mode=mode, allow_pickle=False)


def refuse_bomb(path: Path) -> None:
    """Raise ValueError where an array of a .npy or .npz file claims more bytes than it can hold."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            _refuse_claim(file, os.fstat(file.fileno()).st_size)
            return
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            refuse_inflation(one.compress_size, one.file_size, what=one.filename)
            if one.filename.endswith(".npy"):
                with archive.open(one) as member:
                    _refuse_claim(member, one.file_size)


def _refuse_claim(file: Any, size: int) -> None:
    """Raise ValueError where the head of an array claims more than the bytes behind it."""
    import numpy as np

    if file.read(6) != b"\x93NUMPY":
        return  # NumPy says what it is not
    file_version = file.read(2)
    read = {b"\x01\x00": np.lib.format.read_array_header_1_0}
    shape, _, dtype = read.get(file_version, np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise ValueError("Object arrays")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size or any(side < 0 for side in shape):
        raise ValueError(f"an array of {list(shape)} in a file of {size:,} bytes")


def refuse_inflation(packed: int, whole: int, *, what: object) -> None:
    """Raise ValueError where so many bytes come of so few that no honest file does so.

    Args:
        packed: bytes as they lie in the file.
        whole: bytes that they say they become.
        what: the part, for the message.
    """
    if whole > max(_SMALL, packed * _MOST_PACKED):
        raise ValueError(f"{what}: {packed:,} bytes that become {whole:,}")


def gunzip(content: bytes) -> bytes:
    """Return what gzip packed, as far as an honest file goes.

    Raises:
        ValueError: it grows without measure.
        OSError, EOFError, zlib.error: it is damaged.
    """
    import io

    parts, size = [], 0
    with gzip.open(io.BytesIO(content)) as file:
        while part := file.read(_BLOCK):
            size += len(part)
            refuse_inflation(len(content), size, what="gzip")
            parts.append(part)
    return b"".join(parts)


# --- HDF5 ----------------------------------------------------------------------------------------


def read_dataset(file: "h5py.File", name: str, *, rows: int | None = None) -> "np.ndarray":
    """Read a whole dataset of plain values, after its claims are held to the file's size.

    Args:
        file: the file, open.
        name: the dataset's.
        rows: how many it must have; None: any number.

    Raises:
        KeyError: there is none.
        ValueError: it holds references or objects, is of another length, or claims more bytes than
            the file has.
    """
    import h5py
    import numpy as np

    dataset = h5py.h5d.open(file.id, name.encode())
    if not isinstance(dataset, h5py.h5d.DatasetID):
        raise ValueError(f"{name} is no dataset")
    is_opaque = np.issubdtype(dataset.dtype, np.void) and dataset.dtype.names is None
    if dataset.dtype.hasobject or is_opaque:
        raise ValueError(f"{name} holds {dataset.dtype}, plain values are expected")
    if dataset.shape is None or (rows is not None and dataset.shape != (rows,)):
        raise ValueError(f"{name} has shape {dataset.shape}, expected {rows} rows")
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    size = file.id.get_filesize()
    if claimed > size:
        raise ValueError(f"{name} claims {claimed:,} bytes in a file of {size:,}")
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values
