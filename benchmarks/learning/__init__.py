"""What is learned, beside a plain transformers loop: the embedded base on three public data sets, LoRA and in full.

`python -m benchmarks.learning`; the method and what was seen: docs/design/learning-benchmark.md.
"""
