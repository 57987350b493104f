"""SANE: a transformer autoencoder over windows of tokens (arXiv 2406.09997)."""

from dwf.codecs.sane.codec import SaneCodec
from dwf.codecs.sane.losses import nt_xent, squared_error

__all__ = ["SaneCodec", "nt_xent", "squared_error"]
