"""Serving: how fast answers are written.

tunesmith is imported before torch, as its commands do: it settles how torch's threads wait for each other.
"""

import tunesmith  # noqa: F401
