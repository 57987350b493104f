"""Generators of networks: a codec and a density, fitted, saved, loaded, sampled."""
