"""Where ranks meet: at one address, on a port and under a secret that this user alone can read.

The first rank listens at the named address and no other, and leaves port and secret in a file of
mode 0600 on the file system that all share. All keys of the store stand behind the secret. A rank
that finds no key of it there has reached somebody else, and reads the file again; so does one that
has read what a killed attempt left. The secret keeps ranks from a store that is not theirs. It
keeps nobody from ours: who reaches the port can list its keys, as torch cannot ask who he is.
"""

import fcntl
import hashlib
import ipaddress
import json
import os
import secrets
import socket
import stat
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from dwf.errors import WrongLaunch
from dwf.run_folder import MEETING

# By these all ranks of one attempt name the same file, and no other attempt does.
_ATTEMPT = (
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
_MODE = 0o600
_SECONDS_BETWEEN_LOOKS = 0.1
_SIOCGIFADDR = 0x8915  # Linux: the address of an interface
_TO_CONNECT = timedelta(seconds=10)
_FIRST, _HERE = "dwf-first", "dwf-here-{}"


@dataclass(frozen=True)
class Place:
    """Where the store is."""

    address: str
    port: int
    secret: str


def file_of(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the file by which the ranks of this attempt at a run meet.

    Args:
        folder: the run's; it need not be there.
        environment: variables of the launcher.
    """
    words = [environment.get(name, "") for name in _ATTEMPT]
    attempt = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    return folder.absolute().with_name(MEETING.format(folder.absolute().name, attempt))


def open_store(
    file: Path, address: str, *, port: int, world: int, timeout: timedelta
) -> dist.Store:
    """Let ranks meet; the first calls it. Returns when all have come.

    Args:
        file: see `file_of`; it is removed again.
        address: where to listen.
        port: on which; 0 for one that is free.
        world: how many ranks there are.
        timeout: how long to wait for the others.

    Raises:
        OSError: the address is none of this machine, or the port is taken.
        RuntimeError: not all came.
    """
    family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
    listening = socket.create_server((address, port), family=family, backlog=world)
    place = Place(address, listening.getsockname()[1], secrets.token_hex(32))
    whole = dist.TCPStore(
        *(place.address, place.port),
        is_master=True,
        master_listen_fd=listening.detach(),
        timeout=timeout,
        wait_for_workers=False,
    )
    store = dist.PrefixStore(place.secret, whole)
    store.set(_FIRST, "")
    try:
        _write(file, place)
        store.wait([_HERE.format(rank) for rank in range(1, world)], timeout)
    finally:
        file.unlink(missing_ok=True)
    return store


def join_store(file: Path, rank: int, *, timeout: timedelta) -> dist.Store:
    """Return the first rank's store; the others call it.

    Args:
        file: see `file_of`.
        rank: this process.
        timeout: how long to look for the first.

    Raises:
        RuntimeError: it was not there.
        WrongLaunch: another user may read or write the file.
    """
    end = time.monotonic() + timeout.total_seconds()
    while True:
        place = _read(file)
        if place is not None:
            with suppress(RuntimeError):
                whole = dist.TCPStore(
                    *(place.address, place.port), timeout=_TO_CONNECT, wait_for_workers=False
                )
                store = dist.PrefixStore(place.secret, whole)
                if store.check([_FIRST]):
                    whole.set_timeout(timeout)
                    store.set(_HERE.format(rank), "")
                    return store
        if time.monotonic() > end:
            raise RuntimeError(f"the first rank is not at {file} after {timeout}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def leads_back(name: str) -> bool:
    """Return whether a machine's name leads nowhere but back to it, as Debian's 127.0.1.1 does.

    Where a number or `localhost` does, that is asked for.
    """
    return name != "localhost" and not _is_number(name) and not _outward(name)


def outward_address(name: str, towards: str) -> str:
    """Return the address by which other machines reach this one.

    Args:
        name: of this machine, or its address as a number, which is taken as it is.
        towards: another machine, for a name that leads back to this one: the address from which
            this one reaches it is taken. Nothing is sent there.

    Raises:
        OSError: it has none.
    """
    if not leads_back(name):
        return (_outward(name) or [name])[0]
    ((family, _, _, _, there), *_) = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect(there)
        return asked.getsockname()[0]


def interface_of(address: str) -> str | None:
    """Return the network interface that has an address of this machine, where Linux tells."""
    for _, name in socket.if_nameindex() if sys.platform == "linux" else ():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, suppress(OSError):
            told = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            if socket.inet_ntoa(told[20:24]) == address:
                return name
    return None


def _outward(name: str) -> list[str]:
    try:
        found = [one[4][0] for one in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)]
    except socket.gaierror:  # unknown here; others may know it
        return []
    return [one for one in found if not ipaddress.ip_address(one.partition("%")[0]).is_loopback]


def _is_number(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def _write(file: Path, place: Place) -> None:
    """Write a whole file that its owner alone can read, in the place of what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial-{secrets.token_hex(6)}")
    with open(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w", encoding="utf-8"
    ) as opened:
        json.dump(asdict(place), opened)
    partial.replace(file)


def _read(file: Path) -> Place | None:
    """Return what the first rank wrote; None while it has not.

    Raises:
        WrongLaunch: it is another's, or open to others.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(opened, encoding="utf-8") as read:
        found = os.fstat(read.fileno())
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise WrongLaunch(
                f"{file} has mode {stat.S_IMODE(found.st_mode):o} and owner {found.st_uid}, "
                f"expected {_MODE:o} and {os.getuid()}: ranks meet by it alone; remove it, and "
                "start them again"
            )
        return Place(**json.load(read))
