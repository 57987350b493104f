"""Stop at a step boundary when a signal asks for it.

The handler only sets a flag: work in a handler would run in the middle of a step. The step
boundary sees the flag, saves, and raises `Preempted`. Ranks that work together see signals at
different steps, so they agree at the boundary: otherwise one would save while another waits for it.
"""

import signal
from types import FrameType

from dwf.errors import Preempted
from dwf.ranks import world

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
_previous: dict[int, object] = {}
_asked: list[int] = []
_has_agreed = False


def _set_flag(number: int, frame: FrameType | None) -> None:
    if number in _asked and number == signal.SIGINT:
        raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step boundary
    _asked.append(number)


def watch() -> None:
    """Install the handlers; call once, in the main thread of a process that trains."""
    for number in SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # `nohup` asked that it goes on without its terminal
        _previous.setdefault(number, signal.signal(number, _set_flag))


def previous(number: int) -> object:
    """Return the handler that `watch` took the place of, as `submitit` sets one to requeue."""
    return _previous.get(number)


def asked_by() -> tuple[int, ...]:
    """Return the signals that came, in order."""
    return tuple(_asked)


def is_asked() -> bool:
    """Whether a signal has asked this process to stop."""
    return bool(_asked)


def forget() -> None:
    """Take back the flag, as in a worker process that goes on to another unit of work."""
    _asked.clear()


def agreed() -> bool:
    """Whether a signal has asked any rank to stop; all ranks call it at the same step boundary.

    Raises:
        WrongLaunch: see `ranks.world`.
    """
    global _has_agreed
    _has_agreed = world().any(is_asked())
    return _has_agreed


def stop() -> None:
    """Leave the program after its state was saved, by raising `Preempted`."""
    by = signal.Signals(_asked[0]).name if _asked else "a signal to another rank"
    stopped = Preempted(f"stopped by {by}")
    if _has_agreed:
        world().shared_error = stopped  # all ranks raise it now
    raise stopped
