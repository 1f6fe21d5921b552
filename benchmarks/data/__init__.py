"""From files to a frozen snapshot, beside datatrove: `python -m benchmarks.data --rows N --json`."""
