"""Errors of the system (no permission, a full disk, a failing file system), apart from damage.

A file that cannot be opened or read may be sound, so nobody is told to remove it.
"""

import contextlib
import errno
import os
import pwd
import re
from pathlib import Path

_NUMBER, _NAME = re.compile(r"errno = (\d+)"), re.compile(r"name = '([^']*)'")
_IN_USE = ("locking flag", "already open", "unable to lock file")
_OF_CONTENT = (None, errno.EINVAL)  # a seek to where altered bytes point
_AGAIN = "What was finished is kept; give the same command again"
_NO_SPACE = f"{_AGAIN} when there is space."
_NO_ACCESS = (
    "Ask its owner for access, or work in a place of your own with another --root or --name."
)
_FAILS = (
    f"The file may be sound, its file system fails. {_AGAIN}, and tell those who run the file "
    "system if it stays so."
)
_BUSY = f"Another process has it open. {_AGAIN} when that has ended."
_MENDS = {
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: "Nothing can be written there: give a --root where you may write.",
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "Files may not be so large here: raise `ulimit -f`, or give another --root.",
    errno.EMFILE: f"Raise the limit with `ulimit -n`. {_AGAIN}.",
    errno.ENFILE: f"All users together have too many files open. {_AGAIN} later.",
    errno.ENOMEM: f"{_AGAIN} when there is memory.",
    errno.EIO: _FAILS,
    errno.ESTALE: _FAILS,
    errno.ETIMEDOUT: _FAILS,
    errno.ENOTCONN: _FAILS,
    errno.EREMOTEIO: _FAILS,
    errno.EBUSY: _BUSY,
    errno.EAGAIN: _BUSY,
    errno.ETXTBSY: _BUSY,
    errno.ENAMETOOLONG: "Give a shorter --name or --root.",
    errno.ENOENT: "Another process may have removed it. Look for it, then give the command again.",
    errno.ENOTDIR: "A file stands where a folder is expected: move it, or give another --root.",
    errno.EISDIR: "A folder stands where a file is expected: move it, or give another --root.",
}


def of_system(error: BaseException, path: Path | str) -> OSError | None:
    """Return what the system said when a file was opened or read, with the file's name.

    HDF5 tells some of it in the text of its errors alone.

    Args:
        error: what opening or reading it raised.
        path: the file, or its folder, where the error names none.

    Returns:
        None where the file's content is at fault: only that is damage.
    """
    text = f"{error} {error.__context__ or ''}"
    number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    found = _NUMBER.search(text)
    if number is None and found:
        number = int(found[1])
    if number is None and any(words in text for words in _IN_USE):
        number = errno.EBUSY
    if number in _OF_CONTENT:
        return None
    return OSError(number, os.strerror(number), str(name or path))


def sentence_of(error: OSError) -> str:
    """Return an error of the system in words: the reason, the file, its owner and the mend."""
    name, number = error.filename, error.errno
    named = _NAME.search(str(error))
    if name is None and named:
        name = named[1]
    reason = str(error) if number is None else os.strerror(number)
    file = f": {os.fsdecode(name)}" if isinstance(name, (str, bytes)) else ""
    owner = _owner_of(name) if file and number in (errno.EACCES, errno.EPERM) else ""
    return f"{reason}{file}{owner}. {_MENDS.get(number, f'{_AGAIN}.')}"


def _owner_of(name: str | bytes) -> str:
    """Return in brackets whose file it is, or whose folder where that hides it."""
    path = Path(os.fsdecode(name))
    for place in (path, *path.parents):
        with contextlib.suppress(OSError, KeyError):
            uid = place.stat().st_uid
            return "" if uid == os.geteuid() else f" ({place} belongs to {pwd.getpwuid(uid)[0]})"
    return ""
