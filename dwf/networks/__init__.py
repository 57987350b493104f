"""Architectures of zoo members, and running many of them at once."""
