"""Score generated networks against the zoo they were learnt from: reports/NAME/.

python launch/evaluate.py --help
"""

from dwf.commands.evaluate import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
