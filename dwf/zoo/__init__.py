"""Zoos: networks as rows of a matrix with a layout, trained many at once, kept in shards."""
