"""The screen of a command, kept as `log.txt` in the folder of the run that it makes.

Kept are printed text, log lines, errors, and of a bar a line a minute. A command remembers its text
until a stage names the folder. Of several ranks the first alone enters a stage, so it alone writes.
"""

import contextlib
import io
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from dwf.errors import DwfError, Preempted, StillRunning
from dwf.files import open_own
from dwf.plain import is_visible, visible

FILE = "log.txt"
_TIME = "%Y-%m-%d %H:%M:%S"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_commands: "list[_Command]" = []


class _Command(logging.Handler):
    """Text of one command: kept in memory until a folder takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", _TIME))
        self.files: list[Path] = []
        """Logs of the run that it makes, and of those that it makes within."""
        self.waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log line; called by `logging`."""
        self.take(self.format(record) + "\n")

    def take(self, text: str) -> None:
        """Append text to the files, or keep it until there is one."""
        text = visible(_COLOURS.sub("", text))
        if not self.files:
            self.waiting.append(text)
        for file in self.files:
            # A full disk, or a link in its place, must not end the work that is told of.
            with contextlib.suppress(OSError, DwfError), open_own(file, "a") as out:
                out.write(text)


def _shown(text: str) -> str:
    """Return text as it may reach the screen: colours, which are rich's, and no other control."""
    if is_visible(text, "\n\t"):
        return text
    colours = [*_COLOURS.findall(text), ""]
    parts = map(visible, _COLOURS.split(text))
    return "".join(part + colour for part, colour in zip(parts, colours, strict=True))


class VisibleFormatter(logging.Formatter):
    """Format of log lines that keeps control characters of names from the screen."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line; see `dwf.plain.visible`."""
        return visible(super().format(record))


class _Both(io.TextIOBase):
    """Standard output whose text a command takes, too."""

    def __init__(self, screen: TextIO, command: _Command):
        self.screen, self.command = screen, command

    def write(self, text: str) -> int:
        """Print the text, and take it."""
        self.command.take(text)
        self.screen.write(_shown(text))
        return len(text)

    def flush(self) -> None:
        """Show what was printed."""
        self.screen.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self.screen.isatty()

    def fileno(self) -> int:
        """Number of the file that is printed to."""
        return self.screen.fileno()

    @property
    def encoding(self) -> str:
        """Encoding of what is printed."""
        return self.screen.encoding

    @property
    def buffer(self) -> io.BufferedIOBase:
        """Place of bytes, which are not kept."""
        return self.screen.buffer


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within the block, which runs one command, the screen is kept by the run that it makes.

    A command within one that has made nothing yet is that one.
    """
    if _commands and not _commands[-1].files:
        command = _commands[-1]
        with _errors(command):
            yield
        return
    command = _Command()
    logger, screen = logging.getLogger("dwf"), sys.stdout
    logger.addHandler(command)
    _commands.append(command)
    sys.stdout = _Both(screen, command)
    try:
        with _errors(command):
            yield
    finally:
        sys.stdout = screen
        _commands.remove(command)
        logger.removeHandler(command)


@contextlib.contextmanager
def _errors(command: _Command) -> Iterator[None]:
    """Let a command take the error that it ends with; afterwards it has no folder."""
    try:
        yield
    except DwfError as error:
        command.take(f"error: {error}\n")
        raise
    except StillRunning as news:
        command.take(f"{news}\n")
        raise
    except (KeyboardInterrupt, Preempted):
        command.take("stopped; what was finished is saved\n")
        raise
    except Exception as error:
        command.take("".join(traceback.format_exception(error)))
        raise
    finally:
        command.files.clear()
        command.waiting.clear()


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Keep the screen in a folder: to the end of a command that had none, else within the block.

    Without a command nothing is kept.
    """
    if not _commands:
        yield
        return
    command, file = _commands[-1], folder / FILE
    is_own, is_new = not command.files, file not in command.files
    if is_new:
        command.files.append(file)
    if is_own:
        text, command.waiting = "".join(command.waiting), []
        command.take(text)
    try:
        yield
    finally:
        if is_new and not is_own and file in command.files:
            command.files.remove(file)


def note(line: str) -> None:
    """Keep a line that is not shown, as of a bar."""
    for command in _commands:
        command.take(f"{time.strftime(_TIME)} {line}\n")


def files() -> list[Path]:
    """Return where the screen is kept now; for `follow`."""
    return [file for command in _commands for file in command.files]


def follow(files: Sequence[Path]) -> None:
    """Let this process, a worker of a command, keep its log lines where the command's are."""
    if not files:
        return
    command = _Command()
    command.files.extend(files)
    logging.getLogger("dwf").addHandler(command)
