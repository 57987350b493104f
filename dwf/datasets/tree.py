"""Files below a folder, or within a zip or tar file, which is read and never unpacked."""

import contextlib
import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dwf.errors import ConfigError
from dwf.files import read_bytes, refuse_inflation, refuse_irregular
from dwf.run_folder import sha256_of

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError,
    gzip.BadGzipFile,
)  # fmt: skip
"""Errors of reading an archive that is altered, cut short, or packed in an unknown way."""
_ENCRYPTED = 1  # bit of a zip member's flags
_NOISE = ("__MACOSX", "Thumbs.db")


@dataclass(frozen=True)
class Tree:
    """Files by their names."""

    path: Path
    """The folder or archive."""
    names: tuple[str, ...]
    """Names of the files, relative to `path`, with slashes; hidden ones are left out."""
    read: Callable[[str], bytes]
    """Name -> content."""
    all_folders: frozenset[str] = frozenset()
    """Names of all folders that are told of, empty ones too."""

    def below(self, folder: str) -> "Tree":
        """Return the files of one folder, by their names in it."""
        start = f"{folder}/"
        names, folders = (
            [name.removeprefix(start) for name in every if name.startswith(start)]
            for every in (self.names, self.all_folders)
        )
        read = self.read
        return Tree(self.path, tuple(names), lambda name: read(start + name), frozenset(folders))

    @property
    def folders(self) -> set[str]:
        """Names of the folders at the top, empty ones too."""
        above = {name.split("/", 1)[0] for name in self.names if "/" in name}
        return above | {name.split("/", 1)[0] for name in self.all_folders}


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open a folder, a zip file or a tar file, compressed or not.

    Raises:
        ConfigError: it is none of these, is damaged, or holds a name that leaves it.
    """
    if path.exists() and not path.is_dir():
        refuse_irregular(path)
    if path.is_dir():
        names, folders = _names_in(path)
        yield Tree(path, names, lambda name: read_bytes(path / name), frozenset(folders))
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _tree_of_zip(path, archive)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield _tree_of_tar(path, archive)
        else:
            raise ConfigError(f"{path} is no folder, and no zip or tar file of one")
    except DAMAGED as error:
        raise ConfigError(f"{path} is damaged ({error}): get it again") from None


def _tree_of_zip(path: Path, archive: zipfile.ZipFile) -> Tree:
    files = {_relative(one.filename, path): one for one in archive.infolist() if not one.is_dir()}
    locked = next((name for name, one in files.items() if one.flag_bits & _ENCRYPTED), None)
    if locked is not None:
        raise ConfigError(f"{path}: {locked} is encrypted: unpack it, and give the folder")
    for one in archive.infolist():
        _refuse_inflation(one.compress_size, one.file_size, path=path, name=one.filename)
    folders = [one.filename for one in archive.infolist() if one.is_dir()]
    names, folders = _kept(list(files), path), _kept(folders, path)
    return Tree(path, names, lambda name: archive.read(files[name]), frozenset(folders))


def _tree_of_tar(path: Path, archive: tarfile.TarFile) -> Tree:
    every = members_of(archive)
    for one in every:
        _refuse_inflation(path.stat().st_size, one.size, path=path, name=one.name)
    # A hard link is the file that it names, which lies in the archive; other links are left out.
    files = {_relative(one.name, path): one for one in every if one.isfile() or one.islnk()}
    folders = _kept([one.name for one in every if one.isdir()], path)
    names = _kept(list(files), path)
    return Tree(path, names, lambda name: _extracted(archive, files[name]), frozenset(folders))


def _refuse_inflation(packed: int, whole: int, *, path: Path, name: str) -> None:
    try:
        refuse_inflation(packed, whole, what=name)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}: unpack it yourself, and give the folder") from None


def members_of(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of a tar file, all of them.

    Raises:
        tarfile.ReadError: it has no end; tarfile itself takes an altered header for one.
    """
    every = archive.getmembers()
    archive.fileobj.seek(archive.offset)
    end = archive.fileobj.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise tarfile.ReadError(f"cut short or altered behind its {len(every)} members")
    return every


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        opened = archive.extractfile(member)
    except KeyError:
        opened = None
    if opened is None:
        raise tarfile.ReadError(f"{member.name} is a link to what the archive has not")
    return opened.read()


def _names_in(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of all files and of all folders below a folder."""
    below = list(_below(path, frozenset()))
    files, folders = (
        [one.relative_to(path).as_posix() for one, is_folder in below if is_folder == wanted]
        for wanted in (False, True)
    )
    kept = _kept(files, path)
    odd = next((name for name in kept if not (path / name).is_file()), None)
    if odd is not None:
        raise ConfigError(f"{path / odd} is no file, or a link to nothing: remove it")
    return kept, _kept(folders, path)


def _below(folder: Path, above: frozenset[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield all below a folder, and whether it is one; links are followed, in circles refused."""
    real = folder.resolve()
    if real in above:
        raise ConfigError(f"{folder} is a link to a folder that it lies in: remove it")
    for entry in sorted(folder.iterdir()):
        yield entry, entry.is_dir()
        if entry.is_dir():
            yield from _below(entry, above | {real})


def _kept(names: list[str], path: Path) -> tuple[str, ...]:
    every = sorted(_relative(name, path) for name in names)
    return tuple(name for name in every if not _is_noise(name))


def _is_noise(name: str) -> bool:
    return any(part.startswith(".") or part in _NOISE for part in name.split("/"))


def _relative(name: str, path: Path) -> str:
    """The name within the archive; one that leads out of it is refused."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise ConfigError(
            f"{path} holds {name!r}, which leads out of it, as no honest archive does: get it "
            "elsewhere"
        )
    return str(place)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files below a folder, in hex.

    A folder's is that of the lines `SHA-256  NAME` of its files, ordered by name: what
    `find . -type f | sort | xargs sha256sum | sha256sum` gives, with names that begin without `./`.
    """
    if not path.is_dir():
        return sha256_of(path)
    lines = [f"{sha256_of(path / name)}  {name}\n" for name in _names_in(path)[0]]
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
