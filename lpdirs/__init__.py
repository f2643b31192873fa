"""Latent-path directions: what a generative model of thoracic CT has learned, found without labels and measured.

The notebooks are the way in; these are what they call, in the order of the layers:

- `lpdirs.data.build.build_dataset`: a folder of DICOM to slices in HU, read by `lpdirs.data.store.open_dataset`
- `lpdirs.generative.generators.as_generator`: any torch module from z to images; `lpdirs.generative.generators.load_generator` for ours
- `lpdirs.discovery.methods.discover`: K directions by any method, as `lpdirs.discovery.directions.Directions`
- `lpdirs.analysis.response.respond`: factors along each direction; `lpdirs.analysis.naming.name_directions` names what earns it
- `lpdirs.analysis.explorer.explore`: sliders on a run
- `lpdirs.pipeline.sweep.sweep`: a grid of configurations, and `lpdirs.pipeline.verify.verify` for what is on disk
"""

import os

# torch's threads otherwise spin for long while they wait, which on a shared machine takes the core that the other thread needs;
# read when torch is first loaded
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
