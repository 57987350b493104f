"""Train networks of several origins further on another task: finetunes/NAME.

python launch/finetune.py --help
"""

from dwf.commands.finetune import main
from dwf.ranks import exit_together

if __name__ == "__main__":
    exit_together(main)
