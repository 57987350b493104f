"""Autoencoders of networks as vectors: p-diff's and VAE-Diffusion's."""

from dwf.codecs.autoencoder.codec import AutoencoderCodec

__all__ = ["AutoencoderCodec"]
