"""Training side by side with the peers: the same model, rows and order of steps, each in a fresh process of its own.

`python -m benchmarks.training --size S --method lora --seeds 1`; the method and what was seen: docs/design/training-benchmark.md.
"""
