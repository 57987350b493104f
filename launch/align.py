"""Align a zoo, or each of a family: one symmetry frame, as zoos/NAME (default ZOO-aligned).

python launch/align.py --help
"""

from dwf.commands.align import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
