"""Tokens: pieces of output channels, exact for any architecture."""

from dwf.codecs.tokens.codec import TokensCodec
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.layers import TokenLayer
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.codecs.tokens.tiling import Tiling

__all__ = ["Geometry", "Tiling", "TokenLayer", "TokenScaling", "TokensCodec"]
