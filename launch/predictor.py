"""Fit predictors of networks' properties to zoos and judge them on test networks: runs/NAME.

python launch/predictor.py --help
"""

from dwf.commands.predictor import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
