"""Zoos in: folders of other people's networks become zoos, one importer a format."""
