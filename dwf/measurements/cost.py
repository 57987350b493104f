"""Cost of a network: parameters, and operations that an answer takes; computed, not measured.

Shape suffixes: N networks.
"""

import numpy as np

from dwf.measurements.config import CostConfig
from dwf.measurements.folder import Column
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.zoo.facts import Facts


class Cost(Measure):
    """Parameters and operations, equal of all networks of an architecture."""

    config: CostConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_parameters` and `NAME_flops`."""
        return {f"{self.name}_{what}": Column(self.name) for what in ("parameters", "flops")}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return both; operations are NaN where the architecture does not tell them."""
        num, facts = len(block), block.facts
        parameters = sum(tensor.numel() for tensor in block.network.parameters())
        products = facts.network.multiplications(facts.input_shape)
        flops = np.nan if products is None else 2 * products
        return {
            f"{self.name}_parameters": np.full(num, float(parameters)),
            f"{self.name}_flops": np.full(num, float(flops)),
        }
