"""Libraries that dwf does without until they are asked for: its extras.

Where one is needed, `require` is called before it is imported, so that a library that is missing is
told in one sentence.
"""

import importlib.util
import shlex

from dwf.errors import ConfigError
from dwf.shipped import ROOT

EXTRAS = {
    "cluster": ("submitit", "ray", "optuna"),
    "deepspeed": ("deepspeed",),
    "mpi": ("mpi4py",),
    "recurrent": ("mambapy",),
    "export": ("onnx", "onnxruntime", "onnxscript", "huggingface_hub"),
    "track": ("tensorboard", "wandb", "mlflow"),
}
"""Extra of `setup.py` -> what dwf imports of it."""


def require(*packages: str, who: str) -> None:
    """Refuse what needs libraries that are not installed.

    Args:
        packages: names by which they are imported, each in `EXTRAS`.
        who: what needs them, for the message.

    Raises:
        ConfigError: one is missing; names the extra and the command that installs it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        extra = extra_of(missing[0])
        raise ConfigError(
            f"{who} needs {', '.join(missing)}, which dwf's extra [{extra}] installs and which is "
            f"not here: {pip_command(extra)}"
        )


def extra_of(package: str) -> str:
    """Return the extra that a library belongs to."""
    return next(extra for extra, packages in EXTRAS.items() if package in packages)


def pip_command(extra: str) -> str:
    """Return the command that installs an extra's libraries.

    Of an installed dwf it names the libraries, not `dwf[EXTRA]`: pip might take another package of
    that name from its index.
    """
    if (ROOT / "setup.py").exists():
        return shlex.join(["pip", "install", "-e", f"{ROOT}[{extra}]"])
    from importlib import metadata  # slow to import, and seldom needed

    told = metadata.requires("dwf") or []
    wanted = [line.partition(";")[0].strip() for line in told if f'extra == "{extra}"' in line]
    return shlex.join(["pip", "install", *wanted])
