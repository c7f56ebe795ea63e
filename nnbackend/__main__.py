"""`python -m nnbackend`: the command line without an installed script."""

import sys

from nnbackend.cli import main

if __name__ == "__main__":
    sys.exit(main())
