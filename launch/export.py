"""Export networks of a zoo for other tools: exports/NAME (default ZOO-FORMAT), or any folder.

python launch/export.py --help
"""

from dwf.commands.export import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
