"""A token for each hidden unit: what it computes on fixed training inputs."""

from dwf.codecs.functions.codec import FunctionsCodec

__all__ = ["FunctionsCodec"]
