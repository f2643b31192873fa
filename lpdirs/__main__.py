"""The command line: python -m lpdirs."""

import sys

from lpdirs.pipeline.cli import main

sys.exit(main())
