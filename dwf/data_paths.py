"""Files of the user's own data that this command was given by name: `--data-path NAME=FILE`.

A zoo records the name and the digest of its data, never a path. Where the prepared copy is gone,
the flag says where the file lies now; another file is refused by its digest.
"""

import os
import shlex
from pathlib import Path

from dwf.errors import ConfigError
from dwf.names import expanded

ENVIRONMENT = "DWF_DATA_PATHS"
"""Variable that hands the files on to worker processes and jobs, quoted as a shell's words."""
DATA_HELP = "place of own data that a zoo names, as NAME=FILE"


def give_data(*told: str) -> None:
    """Let this process, its workers and its jobs find data by name.

    Args:
        told: `NAME=FILE` each; FILE may be a folder.

    Raises:
        ConfigError: one is not of that form, or its file is not there.
    """
    for one in told:
        name, _, file = one.partition("=")
        if not name or not file:
            raise ConfigError(f"--data-path {one}: expected NAME=FILE, as flowers.npz=/data/f.npz")
        if not expanded(file).exists():
            raise ConfigError(f"--data-path {one}: {file} is not there")
        _put(name, expanded(file).absolute())


def _put(name: str, file: Path) -> None:
    every = given_data() | {name: file}
    os.environ[ENVIRONMENT] = shlex.join(f"{name}={file}" for name, file in every.items())


def given_data() -> dict[str, Path]:
    """Return name -> file of the data that were given."""
    pairs = (word.partition("=") for word in shlex.split(os.environ.get(ENVIRONMENT, "")))
    return {name: Path(file) for name, _, file in pairs}


def handed_on() -> dict[str, str]:
    """Return the variable that tells another process of them, if it is set."""
    return {ENVIRONMENT: os.environ[ENVIRONMENT]} if os.environ.get(ENVIRONMENT) else {}
