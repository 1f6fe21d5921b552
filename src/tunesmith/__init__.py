"""tunesmith: from a pile of your own data to a fine-tuned language model, with a proof for every claim."""

__version__ = "0.1.0"
