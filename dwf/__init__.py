"""dwf: zoos of neural networks, the distribution of their weights, and new networks from it.

`import dwf` imports nothing else: the public names are imported when they are first used.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not run `__getattr__`
    from dwf.align.stage import align_zoo
    from dwf.audit.stage import audit_generators
    from dwf.data_paths import give_data
    from dwf.evaluation.report import Report
    from dwf.evaluation.stage import evaluate
    from dwf.exporters.stage import export_networks
    from dwf.generators.generator import Generator
    from dwf.generators.sample_stage import sample_networks
    from dwf.generators.stage import fit_generator
    from dwf.importers.stage import import_zoo
    from dwf.loading import load_settings
    from dwf.measurements.stage import measure_zoo
    from dwf.predictors.stage import fit_predictors
    from dwf.trackers import track_with
    from dwf.transfer.stage import finetune
    from dwf.trust import trust_code
    from dwf.zoo.family import train_zoos
    from dwf.zoo.manifest import write_manifest
    from dwf.zoo.network_files import load_network
    from dwf.zoo.stage import train_zoo
    from dwf.zoo.store import Zoo

if sys.platform == "win32":  # before modules are imported that Windows lacks
    print("error: dwf runs on Linux and macOS: on Windows install it within WSL 2", file=sys.stderr)
    sys.exit(2)
# Read when torch loads, so set before any import of it. By default OpenMP's threads spin while they
# wait: beside other work small operations then take tens of times as long. Threads that sleep at
# once take a half longer on a quiet machine. So GNU's library spins for some microseconds, and
# others sleep. What a user says goes before: this variable, and GOMP_SPINCOUNT and KMP_BLOCKTIME,
# which the libraries prefer to it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1800")

__version__ = "0.1.0"

# No name of a package or module of dwf: importing that would take the name's place.
PUBLIC = {
    "Generator": "dwf.generators.generator:Generator",
    "Report": "dwf.evaluation.report:Report",
    "Zoo": "dwf.zoo.store:Zoo",
    "align_zoo": "dwf.align.stage:align_zoo",
    "audit_generators": "dwf.audit.stage:audit_generators",
    "evaluate": "dwf.evaluation.stage:evaluate",
    "export_networks": "dwf.exporters.stage:export_networks",
    "finetune": "dwf.transfer.stage:finetune",
    "fit_generator": "dwf.generators.stage:fit_generator",
    "fit_predictors": "dwf.predictors.stage:fit_predictors",
    "give_data": "dwf.data_paths:give_data",
    "load_network": "dwf.zoo.network_files:load_network",
    "import_zoo": "dwf.importers.stage:import_zoo",
    "load_settings": "dwf.loading:load_settings",
    "measure_zoo": "dwf.measurements.stage:measure_zoo",
    "sample_networks": "dwf.generators.sample_stage:sample_networks",
    "track_with": "dwf.trackers:track_with",
    "train_zoo": "dwf.zoo.stage:train_zoo",
    "train_zoos": "dwf.zoo.family:train_zoos",
    "trust_code": "dwf.trust:trust_code",
    "write_manifest": "dwf.zoo.manifest:write_manifest",
}
"""Public name -> where it lies."""

__all__ = [
    "Generator",
    "Report",
    "Zoo",
    "align_zoo",
    "audit_generators",
    "evaluate",
    "export_networks",
    "finetune",
    "fit_generator",
    "fit_predictors",
    "give_data",
    "import_zoo",
    "load_network",
    "load_settings",
    "measure_zoo",
    "sample_networks",
    "track_with",
    "train_zoo",
    "train_zoos",
    "trust_code",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'dwf' has no attribute {name!r}; it has {', '.join(PUBLIC)}")
    module, _, attribute = PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value  # from now on found without this function
    return value


def __dir__() -> list[str]:
    """Return the public names, and what every module has: what a reader is offered by TAB."""
    return sorted({*PUBLIC, *(name for name in globals() if name.startswith("__"))})
