"""Runs: notebooks with settings and records, sweeps over grids, reports."""

import os

# torch's threads, started with it, otherwise spin while they wait: beside other work a training was seen to take fifty times as long
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
