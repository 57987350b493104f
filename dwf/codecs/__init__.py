"""Codecs: weights <-> codes."""
