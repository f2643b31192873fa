"""Latent-path directions: what a generative model of thoracic CT has learned, found without labels and measured."""

import os

# torch's threads otherwise spin while they wait, which on a shared machine costs more than it saves; has to be set before torch
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
