"""Datasets that zoo members are trained on: checksummed, decoded once, memory-mapped."""
