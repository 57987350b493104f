"""Import a zoo of networks that others trained, as zoos/NAME.

python launch/import.py --help
"""

from dwf.commands.import_zoo import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
