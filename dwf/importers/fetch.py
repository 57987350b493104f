"""Fetch a published zoo: download its archives, hold them to their checksums, unpack them.

    FOLDER/fetched.json    address -> SHA-256 of each archive, recorded at the first fetch
    FOLDER/...             what was in the archives

An archive never writes outside its folder, and what is unpacked is only read as data.
"""

import http.client
import json
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dwf.datasets.sources import receive
from dwf.datasets.tree import DAMAGED, members_of
from dwf.errors import DataUnavailable
from dwf.files import read_json
from dwf.importers.sources import SOURCES, Source
from dwf.metrics import logger
from dwf.run_folder import replacing_alone, sha256_of, write_json

RECORD = "fetched.json"
_SECONDS = 30.0
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")
_DAMAGED = (*DAMAGED, OSError, RuntimeError)
"""Errors of unpacking a damaged archive or, as `RuntimeError`, of an encrypted one."""


def fetch(name: str, folder: Path) -> None:
    """Put a published zoo into a folder; what is there already is left alone.

    Args:
        name: a key of `sources.SOURCES`.
        folder: where to.

    Raises:
        DataUnavailable: there is no such source, no network, or the archive has other bytes than
            before, or than published; or it would write outside the folder.
    """
    if name not in SOURCES:
        raise DataUnavailable(f"--fetch {name}: no such source; there are {', '.join(SOURCES)}")
    source = SOURCES[name]
    record = folder / RECORD
    known = read_json(record) if record.exists() else {}
    if known.get("is_whole"):
        logger.info("%s is fetched already: %s", name, folder)
        return
    logger.info("%s: %s; licence %s", name, source.address, source.licence)
    for address, md5 in _archives(source):
        archive = folder / "archives" / PurePosixPath(address.partition("?")[0]).name
        if archive.name == "content":  # Zenodo's links end so
            archive = archive.with_name(PurePosixPath(address).parts[-2])
        if not archive.exists():
            _download(address, archive, md5=md5)
        digest = sha256_of(archive)
        expected = source.sha256 or known.setdefault(address, digest)
        if digest != expected:
            raise DataUnavailable(
                f"{archive} has SHA-256 {digest}, expected {expected}: remove it and fetch it again"
            )
        write_json(record, known)
        unpack(archive, folder)
    write_json(record, known | {"is_whole": True})


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into a folder; a zip's links are left out.

    Raises:
        DataUnavailable: it is damaged, or a member of it is a device or would lie outside the
            folder.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, members=members_of(packed), filter="data")
    except tarfile.FilterError as error:
        raise DataUnavailable(
            f"{archive} would write a device, or outside of {folder}: {error}; nothing good writes "
            "such archives"
        ) from None
    except _DAMAGED as error:
        raise DataUnavailable(f"{archive} is damaged ({error}): remove it, fetch again") from None


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for one in packed.infolist():
            path = PurePosixPath(one.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DataUnavailable(
                    f"{archive} would write {one.filename!r} outside of {folder}: nothing good "
                    "writes such archives"
                )
        for one in packed.infolist():
            if not stat.S_ISLNK(one.external_attr >> 16):
                packed.extract(one, folder)


def _archives(source: Source) -> Iterator[tuple[str, str | None]]:
    """Yield address and published MD5 of each archive of a source."""
    if source.record is None:
        yield source.address, None
        return
    address = f"https://zenodo.org/api/records/{source.record}"
    try:
        with _open(address) as answer:
            files = [(one["key"], one["links"]["self"], one) for one in json.load(answer)["files"]]
    except (ValueError, KeyError, TypeError):
        raise DataUnavailable(
            f"{address} tells of no files: fetch {source.address} yourself, and give its folder as "
            "source"
        ) from None
    taken = source.files or tuple(name for name, _, _ in files if name.endswith(_ARCHIVES))
    there = {name: (place, told) for name, place, told in files}
    missing = [name for name in taken if name not in there] if taken else ["archive"]
    if missing:
        raise DataUnavailable(
            f"{address} holds no {missing[0]}; it holds {', '.join(there)}: fetch what you need of "
            f"{source.address} yourself, and give its folder as source"
        )
    for name in taken:
        place, told = there[name]
        kind, _, checksum = str(told.get("checksum", "")).partition(":")
        yield place, checksum if kind == "md5" else None


def _download(address: str, path: Path, *, md5: str | None) -> None:
    with _open(address) as answer, replacing_alone(path) as partial:
        found = receive(answer, partial, what=path.name)
        if md5 not in (None, found):
            raise DataUnavailable(
                f"{address} gave bytes of MD5 {found}, published is {md5}: try again"
            )


def _open(address: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "dwf"})
    try:
        return urllib.request.urlopen(request, timeout=_SECONDS)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataUnavailable(
            f"{address} cannot be reached from here ({reason}): fetch it where there is a network, "
            "and give its folder as source"
        ) from None
