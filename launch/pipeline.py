"""The whole way with one command; a finished stage is skipped. Several ways, one after the other.

python launch/pipeline.py --help
"""

from dwf.commands.pipeline import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
