"""dwf: zoos of neural networks, the distribution of their weights, and new networks from it."""

__version__ = "0.1.0"
