"""Latent-path directions: what a generative model of thoracic CT has learned, found without labels and measured."""

import os

# torch's threads otherwise spin for long while they wait, which on a shared machine takes the core that the other thread needs;
# read when torch is first loaded
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
