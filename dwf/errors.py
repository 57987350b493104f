"""Mistakes that a user can make, and how a command reports them.

A `DwfError` says what is wrong, where, the value found, the value expected and the command that
mends it. A command prints it as one line and exits with 2; anything else is our bug and keeps its
traceback.
"""

import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence

from dwf.plain import visible
from dwf.system_errors import sentence_of

_CLOSED_PIPE = 141  # as shells say of what SIGPIPE ended
_NO_TEXT = "surrogates not allowed"  # Python's reason, where bytes stand for what they are not


class DwfError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(DwfError):
    """A setting is unknown, of the wrong type, or out of its range."""


class Idle(ValueError):
    """Settings without effect beside others.

    Args:
        given: the settings, dotted, from the class that holds them all -> value, in words.
        by: those that take their effect away, likewise.
        because: why they have none, with what would give them one.
    """

    def __init__(self, given: Mapping[str, str], *, by: Sequence[str], because: str):
        told = ", ".join(f"{name} = {value}" for name, value in given.items())
        super().__init__(f"{told}: no effect, as {because}; or leave it out")
        self.given, self.by, self.because = given, by, because


class TooLarge(ConfigError):
    """Settings describe a network that this machine's memory does not hold."""


class DataUnavailable(DwfError):
    """A dataset is in no source, or its bytes are not the published ones."""


class NotAZoo(DwfError):
    """A folder is not a zoo, or of another format version."""


class IncompleteZoo(DwfError):
    """Shards of a zoo are missing."""


class CorruptShard(DwfError):
    """A shard is truncated, altered, or holds numbers that are not finite."""


class ShapeMismatch(DwfError):
    """Two things that must have one layout or shape do not."""


class TooFewNetworks(DwfError):
    """A zoo holds fewer networks than a method needs."""


class RunConflict(DwfError):
    """A run folder exists with another configuration, or does not exist."""


class TrainingDiverged(DwfError):
    """A loss is not finite."""


class SolverFailed(DwfError):
    """A differential equation has no solution at the tolerance asked for."""


class CorruptCheckpoint(DwfError):
    """A saved state is truncated or altered."""


class WorkFailed(DwfError):
    """Units of work failed; the others are whole."""


class WrongLaunch(DwfError):
    """Several ranks were started that cannot work together."""


class Preempted(Exception):
    """Raised at a step boundary after the state has been saved."""


class StillRunning(Exception):
    """The work goes on elsewhere; says how to look again. Not an error."""


def _write_all(main: Callable[[], None]) -> None:
    """Run a command and write what it printed; end silently where nobody reads that any more."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise
        # As in `dwf zoo --help | head -3`. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_CLOSED_PIPE)


def _is_unread(file: int) -> bool:
    """Whether a file is a pipe whose other end was closed."""
    poll = select.poll()
    poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def exit_cleanly(main: Callable[[], None]) -> None:
    """Run a command; print a user's error as one line and exit with 2.

    Exits with 130 after Ctrl-C or a preemption signal: what was finished is saved; with 0 where the
    work goes on elsewhere; with 141, and in silence, where whoever read standard output has left.
    """
    try:
        _write_all(main)
    except DwfError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"error: {sentence_of(error)}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError as error:  # a path of other bytes, where it is recorded
        if error.reason != _NO_TEXT:
            raise
        print(
            f"error: {visible(error.object.strip())}: there are bytes in it that are no UTF-8, in "
            "which paths are recorded: give a --root, and files, whose names are",
            file=sys.stderr,
        )
        sys.exit(2)
    except StillRunning as news:
        print(visible(str(news)))
    except (KeyboardInterrupt, Preempted):
        print(
            "stopped; what was finished is saved: give the same command to go on", file=sys.stderr
        )
        sys.exit(130)
