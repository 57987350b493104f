"""Hold many generators against each other and against every null arm: audits/NAME.

python launch/audit.py --help
"""

from dwf.commands.audit import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
