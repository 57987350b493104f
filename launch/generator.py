"""Fit a generator, codec and density, to a zoo's training networks: runs/NAME.

python launch/generator.py --help
"""

from dwf.commands.generator import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
