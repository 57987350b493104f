"""Print the published zoos that `launch/import.py --fetch NAME` knows.

python -m dwf.importers
"""

from dwf.importers.sources import table

if __name__ == "__main__":
    print(table())
