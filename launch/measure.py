"""Measure properties of a zoo's networks, kept beside its shards: zoos/ZOO/measured/NAME.

python launch/measure.py --help
"""

from dwf.commands.measure import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
