"""Folders under a root, whatever made them: how far each is, how two differ, what can go."""
