"""The command line: python -m lpdirs."""

import sys

from lpdirs.runs.cli import main

sys.exit(main())
