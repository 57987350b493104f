"""Format `deepweightflow`: the files of that publication's zoos (arXiv 2601.05052).

`mlp_seed3.pt`, `mlp_xavier_seed3.pt`, `resnet18_seed3.pt`, `smallcnn_seed3.pt`,
`resnet_weights_3.pt`, `vit_3.pt`: a state dict each, the last weights of a run, nothing beside.
"""

import re

from dwf.errors import ConfigError
from dwf.importers.importer import Member, Value
from dwf.importers.state_dict import StateDicts

_NAME = re.compile(
    r"(?P<network>[a-z]+\d*)(?:_(?P<initialisation>(?!weights|seed)[a-z]+))?_"
    r"(?:seed|weights_)?(?P<seed>\d+)\.pt"
)


class DeepWeightFlow(StateDicts):
    """Files named by seed, and those of Iris by initialisation too; each is a run."""

    endings = (".pt",)

    def members(self) -> list[Member]:
        """Return a member for each file of such a name; `seed` and `initialisation` are columns."""
        made = []
        for file in self.files(*self.endings):
            found = _NAME.fullmatch(file.name)
            if found is None:
                continue
            columns: dict[str, Value] = {"seed": int(found["seed"])}
            if found["initialisation"]:
                columns["initialisation"] = found["initialisation"]
            name = self.name_of(file)
            made.append(Member(name, file, self.run_of(file, name), columns=columns))
        if not made:
            raise ConfigError(
                f"source = {self.config.source!r} holds 0 networks of deepweightflow: no file is "
                "called as mlp_seed0.pt; for other names give `format: state_dict`"
            )
        return made
