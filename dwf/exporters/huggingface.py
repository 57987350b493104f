"""Hugging Face: a folder for each network, as its hub keeps one.

row-0000003/config.json         architecture, data, where the network comes from
row-0000003/model.safetensors   its tensors
row-0000003/README.md           the card
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dwf.exporters.card import Card
from dwf.exporters.config import ExportConfig
from dwf.exporters.exporter import Member, OneByOne
from dwf.settings import to_dict
from dwf.zoo.network_files import HUGGING_FACE
from dwf.zoo.store import Zoo


class HuggingFaceExporter(OneByOne):
    """Writes folders `row-0000003/`, each ready to be uploaded; nothing here calls the hub.

    Raises:
        ConfigError: the report that the settings name is not there, or not on these networks.
    """

    imports = ("huggingface_hub",)

    def __init__(self, config: ExportConfig, zoo: Zoo, *, rows_R: np.ndarray):
        super().__init__(config, zoo, rows_R=rows_R)
        self._card = Card.of(config, zoo)

    def files_of(self, row: int) -> tuple[str, ...]:
        """Return the names of a network's files."""
        return tuple(f"row-{row:07d}/{name}" for name in ("config.json", HUGGING_FACE, "README.md"))

    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's folder."""
        config, weights, card = paths
        config.write_text(
            json.dumps(self._described(member.row), indent=1) + "\n", encoding="utf-8"
        )
        weights.write_bytes(self.safetensors(member))
        card.write_text(self._card.text(member.row), encoding="utf-8")

    def _described(self, row: int) -> dict:
        facts = self.zoo.facts
        head = {"architectures": [type(self.network).__name__]}
        labels = facts.network.num_classes
        head |= {} if labels is None else {"num_labels": labels}
        own = {"data": to_dict(facts.data), "zoo": self.zoo.name, "row": row}
        return head | self.told | own
