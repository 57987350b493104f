"""Try settings of any stage under Ray Tune: sweeps/NAME/.

python launch/sweep.py --help
"""

from dwf.commands.sweep import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
