"""Code that a command may import, and files that it may unpickle: those that this user named.

A folder that somebody else made is data, and data chooses no code. A setting that names code is
marked `Code`; what it names is imported only where the user named it: in a settings file or a flag
of this command line, or by `--trust-code`. It is remembered with the digest of its source, so that
the user's own folders need no flag later; changed source is asked for again.

    trusted.json    target -> digests of its source, as it was when the user named it
    key             32 random bytes: what this user's checkpoints are signed with

Both lie in `$DWF_STATE`, else in `$XDG_STATE_HOME/dwf`, else in `~/.local/state/dwf`, readable by
their owner alone.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import hmac
import json
import logging
import os
import secrets
import shlex
import stat
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from dwf.errors import ConfigError
from dwf.names import expanded

logger = logging.getLogger(__name__)

ENVIRONMENT = "DWF_TRUST_CODE"
"""Variable that hands what was named on to worker processes and jobs, parted by spaces."""
PICKLES = "DWF_TRUST_PICKLE"
"""Variable that does so for folders whose files may be unpickled, quoted as a shell's words."""
TRUST_HELP = "code that may be imported though a folder names it, as package.module:factory"
_LIST, _KEY, _LOCK = "trusted.json", "key", "lock"
_KEY_BYTES = 32
_CODE = "names code"
Code = Annotated[str, _CODE]
"""Type of a setting that names code, as `package.module:factory`."""


def code_in(config: object) -> set[str]:
    """Return what the settings in a dataclass name as code, however deep."""
    if isinstance(config, (tuple, list)):
        return {target for one in config for target in code_in(one)}
    if isinstance(config, dict):
        return code_in(list(config.values()))
    if not dataclasses.is_dataclass(config):
        return set()
    hints = typing.get_type_hints(type(config), include_extras=True)
    found: set[str] = set()
    for name, value in vars(config).items():
        is_code = _CODE in typing.get_args(hints.get(name))[1:]
        found |= {value} if is_code else code_in(value)
    return found


def trust_code(*targets: str) -> None:
    """Let this process, its workers and its jobs import what the user names.

    Args:
        targets: `package.module:factory` each.
    """
    named = dict.fromkeys((*_named(), *targets))
    if targets:
        os.environ[ENVIRONMENT] = " ".join(named)


def handed_on() -> dict[str, str]:
    """Return the variables that tell another process what was named; those that are set."""
    return {name: os.environ[name] for name in (ENVIRONMENT, PICKLES) if os.environ.get(name)}


def refuse_stranger(target: str, key: str) -> None:
    """Raise unless this user named a target: on this command line, or before with equal source.

    Args:
        target: `package.module:factory`.
        key: the setting, for the error.

    Raises:
        ConfigError: it was never named, or its source is another than when it was.
    """
    _approve(target, key, _state(), target in _named())


def _named() -> list[str]:
    return os.environ.get(ENVIRONMENT, "").split()


@functools.lru_cache(maxsize=256)  # what a process has imported once stays as it was
def _approve(target: str, key: str, state: Path, is_named: bool) -> None:
    from dwf.source import source_digest  # on use, as every command imports this module

    digest, known = source_digest(target), _remembered(state).get(target, [])
    if digest is not None and digest in known:
        return
    if is_named:
        if digest is not None:
            _remember(state, target, digest)
        return
    why = "its source is another than when you trusted it" if known else "you have not named it"
    raise ConfigError(
        f"{key} = {target!r} is code that would be run, and {why}: read it, and where you trust it "
        f"give the same command with --trust-code {target}"
    )


# --- files that are unpickled ------------------------------------------------------------------


def trust_pickle(*folders: Path) -> None:
    """Let this process and its jobs unpickle files, or all of folders, that nobody signed."""
    told = [*_pickles(), *(str(folder.absolute()) for folder in folders)]
    if folders:
        os.environ[PICKLES] = shlex.join(dict.fromkeys(told))


def is_trusted_pickle(file: Path) -> bool:
    """Tell whether the user named a file, or a folder that it lies in, to `trust_pickle`."""
    named = set(_pickles())
    return any(str(path) in named for path in (file.absolute(), *file.absolute().parents))


def signature(digests: Mapping[str, str]) -> str:
    """Return what only this user can write of files: an HMAC-SHA256 under the user's key, in hex.

    Args:
        digests: name of each file -> SHA-256 of its bytes.
    """
    text = json.dumps(dict(digests), sort_keys=True).encode()
    return hmac.new(_key(), text, hashlib.sha256).hexdigest()


def refuse_forged(folder: Path, digests: Mapping[str, str], *, signed: str | None) -> None:
    """Raise unless this user signed files that are to be unpickled, or named their folder.

    Args:
        folder: where they lie.
        digests: name of each file that is there -> SHA-256 of its bytes.
        signed: what `signature` gave when they were written; None where nobody signed them.

    Raises:
        ConfigError: they are another user's, or altered.
    """
    if str(folder.absolute()) in _pickles():
        return
    if signed is None or not hmac.compare_digest(
        signature(digests).encode(), signed.strip().encode()
    ):
        raise ConfigError(
            f"{folder} holds pickles, which run code when they are read, and you have not signed "
            f"them: another user wrote them, or they were altered; where you trust them, give the "
            f"same command with --trust-pickle {shlex.quote(str(folder))}"
        )


def _pickles() -> list[str]:
    return shlex.split(os.environ.get(PICKLES, ""))


def _key() -> bytes:
    """The user's key; made when it is first needed."""
    state = _state()
    file = state / _KEY
    with _alone(state):
        if not file.exists():
            _write(file, secrets.token_bytes(_KEY_BYTES))
    _refuse_open(file)
    return file.read_bytes()


# --- what is remembered ----------------------------------------------------------------------


def _state() -> Path:
    if own := os.environ.get("DWF_STATE"):
        return expanded(own).absolute()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dwf"


def _remembered(state: Path) -> dict[str, list[str]]:
    file = state / _LIST
    if not file.exists():
        return {}
    _refuse_open(file)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {str(target): list(digests) for target, digests in told.items()}
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(
            f"{file} is no list of trusted code: remove it, and name again what you trust with "
            "--trust-code"
        ) from None


def _remember(state: Path, target: str, digest: str) -> None:
    """Add to the list; where the folder cannot be written, the next command asks again."""
    try:
        with _alone(state):
            told = _remembered(state)
            told[target] = [*told.get(target, []), digest]
            _write(state / _LIST, json.dumps(told, indent=1).encode() + b"\n")
    except OSError as error:
        logger.warning("%s: %s: %s is not remembered", state, error.strerror, target)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Be the only process that writes in the folder; ranks and workers begin at one time."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(state / _LOCK, "a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(file: Path, content: bytes) -> None:
    """Write a whole file that its owner alone can read."""
    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
        os.fsync(opened.fileno())
    partial.replace(file)


def _refuse_open(file: Path) -> None:
    """Raise where another user owns a file, or may read or write it."""
    found = file.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"{file} has mode {stat.S_IMODE(found.st_mode):o} and owner {found.st_uid}, expected "
            f"600 and {os.getuid()}: others may have changed it; remove it, and name again what "
            "you trust"
        )
