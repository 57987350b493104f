"""Measurements: properties of a zoo's networks, kept beside its shards; the stage that measures."""
