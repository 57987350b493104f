"""Train a zoo of networks into zoos/NAME, or several zoos that a family's settings list.

python launch/zoo.py --help
"""

from dwf.commands.zoo import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
