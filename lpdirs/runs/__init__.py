"""Runs: notebooks with settings and records, sweeps over grids, reports."""

import os

# torch's threads, started with it, otherwise spin while they wait: beside other work a step of training took 1.7 s in place of 0.15
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
