"""Draw networks from a generator, as the zoo zoos/NAME (default GENERATOR-samples).

python launch/sample.py --help
"""

from dwf.commands.sample import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
