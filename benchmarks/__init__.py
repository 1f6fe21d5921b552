"""Speeds, each as a ratio to a limit or to a peer measured in the same run. `python -m benchmarks` prints them all."""
