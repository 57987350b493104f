"""Format `deepweightflow`: the files of that publication's zoos (arXiv 2601.05052).

`mlp_seed3.pt`, `mlp_xavier_seed3.pt`, `resnet18_seed3.pt`, `smallcnn_seed3.pt`,
`resnet_weights_3.pt`, `vit_3.pt`: a state dict each, the last weights of a run, nothing beside.
"""

import re
from pathlib import Path

from dwf.importers.importer import Member, Value
from dwf.importers.state_dict import NamedFiles


class DeepWeightFlow(NamedFiles):
    """Files named by seed, and those of Iris by initialisation too; each is a run."""

    endings = (".pt",)
    example = "mlp_seed0.pt"
    pattern = re.compile(
        r"[a-z]+\d*(?:_(?P<initialisation>(?!weights|seed)[a-z]+))?_"
        r"(?:seed|weights_)?(?P<seed>\d+)\.pt"
    )

    def member(self, file: Path, match: re.Match) -> Member:
        """Return the member that a file is; `seed` and `initialisation` are columns."""
        columns: dict[str, Value] = {"seed": int(match["seed"])}
        if match["initialisation"]:
            columns["initialisation"] = match["initialisation"]
        name = self.name_of(file)
        return Member(name, file, self.run_of(file, name), columns=columns)
