"""tunesmith: from a pile of your own data to a fine-tuned language model, with a proof for every claim."""

import os

# Read by torch's thread library when it is loaded: for how many turns threads spin while they wait for each other, a fifth of a millisecond
# to a whole one. `model.waiting` has them sleep instead while others want the cores (docs/design/waiting.md).
SPIN_COUNT = "20000"
os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)

__version__ = "0.1.0"
