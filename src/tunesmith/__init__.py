"""tunesmith: from a pile of your own data to a fine-tuned language model, with a proof for every claim."""

import os

# Read by torch's thread library when it is loaded. Threads that spin while they wait take the cores from whoever else is at work and, on
# a busy machine, from each other: attention took 250 to 1,000 ms where waiting quietly took 44 to 107 (docs/design/training-speed.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
