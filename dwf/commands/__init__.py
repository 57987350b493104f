"""Commands: what `dwf NAME` does, and `python launch/NAME.py` in a checkout.

A command puts a command line, a stage and the place where its units run together. The commands
alone import `cluster`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dwf import screen
from dwf.settings import find


@dataclass(frozen=True)
class Command:
    """One word behind `dwf`."""

    call: str
    """`"module:function"` of what it does."""
    help: str
    """One line about it."""
    reads_words: bool = False
    """Whether the function takes the words of the command line; else they become its arguments, by
    its signature and docstring, and what it returns is the exit code."""

    def run(self, words: Sequence[str], name: str = "") -> None:
        """Do it.

        Args:
            words: the command line behind the command's name.
            name: the name by which help shows it.
        """
        call = find({"call": self.call}, "call")
        if self.reads_words:
            with screen.kept():
                call(words)
            return
        from dwf import preemption
        from dwf.arguments import call_with_words
        from dwf.metrics import log_to_stderr

        log_to_stderr()
        preemption.watch()
        code = call_with_words(call, words, program=f"dwf {name}".strip())
        if code:
            sys.exit(code)


def _stage(module: str, line: str) -> Command:
    return Command(f"dwf.commands.{module}:main", line, reads_words=True)


COMMANDS = {
    "zoo": _stage("zoo", "train a zoo of networks, or a family of zoos"),
    "import": _stage("import_zoo", "import a zoo of networks that others trained"),
    "align": _stage("align", "put a zoo in one symmetry frame"),
    "generator": _stage("generator", "fit a generator, codec and density, to a zoo"),
    "sample": _stage("sample", "draw networks from a generator"),
    "evaluate": _stage("evaluate", "score drawn networks against the zoo: the report"),
    "measure": _stage("measure", "measure properties of a zoo's networks"),
    "finetune": _stage("finetune", "train networks of several origins further on another task"),
    "predictor": _stage("predictor", "fit predictors of properties from weights, and judge them"),
    "export": _stage("export", "export networks for other tools"),
    "pipeline": _stage("pipeline", "the whole way, from zoo to report, with one command"),
    "audit": _stage("audit", "hold many generators against every null arm under one budget"),
    "sweep": _stage("sweep", "try settings of any stage under Ray Tune"),
    "list": Command("dwf.commands.presets:presets", "presets: what each is, its size and time"),
    "data": Command("dwf.commands.data:data", "fetch and verify data sets"),
    "compare": Command("dwf.commands.compare:compare_folders", "two runs or reports side by side"),
    "clean": Command("dwf.commands.clean:clean", "remove what nothing needs any more"),
    "status": Command("dwf.commands.status:status", "how far everything is, and who works on it"),
    "info": Command("dwf.zoo.care:info", "what zoos are"),
    "verify": Command("dwf.zoo.care:verify", "find damage in zoos"),
    "statistics": Command("dwf.zoo.care:statistics", "mean, spread and norm of each tensor"),
    "merge": Command("dwf.zoo.care:merge", "write several zoos as one"),
    "symmetry": Command("dwf.commands.symmetry:symmetry", "symmetry groups of architectures"),
    "published": Command("dwf.commands.published:published", "zoos that `import --fetch` knows"),
    "embed": Command("dwf.commands.embed:embed", "a vector for each network, by a fitted codec"),
    "layers": Command("dwf.commands.layers:layers", "embeddings beside spectra, layer by layer"),
    "reconstruction": Command(
        "dwf.commands.reconstruction:reconstruction", "what a generator's codec loses"
    ),
    "validate": Command("dwf.commands.validate:validate", "hold a report.json to its schema"),
    "index": Command("dwf.commands.index:index", "one page over zoos, runs and reports"),
    "transfer": Command("dwf.commands.transfer:transfer", "join reports of predictors"),
    "convert": Command("dwf.commands.convert:convert", "checkpoints for another number of ranks"),
}
"""Every command, stages first, in the order of the way."""
