"""The shape of a model that starts from scratch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ScratchConfig"]


class ScratchConfig(BaseModel):
    """A Llama-architecture model with random weights, and the byte-level BPE tokenizer that is trained for it.

    Llama, because every engine loads it. Embeddings are tied: in a small model they are a large share of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    architecture: Literal["llama"] = "llama"
    """The only one so far."""
    vocab_size: int = Field(default=4096, ge=260, le=262_144)
    """Tokens of the vocabulary, the 256 bytes and the control tokens included."""
    hidden_size: int = Field(default=256, ge=8)
    """Width of the residual stream; a multiple of 2 x num_heads."""
    intermediate_size: int = Field(default=704, ge=8)
    """Width of the feed-forward layer; about 8/3 of hidden_size for a gated one (Shazeer 2020)."""
    num_layers: int = Field(default=6, ge=1)
    """Decoder layers."""
    num_heads: int = Field(default=8, ge=1)
    """Query heads."""
    num_kv_heads: int = Field(default=4, ge=1)
    """Key and value heads (grouped-query attention, Ainslie et al. 2023); divides num_heads."""
    context: int = Field(default=512, ge=8)
    """Longest sequence in tokens."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position angles (Su et al. 2021)."""

    @model_validator(mode="after")
    def _shapes_divide(self) -> ScratchConfig:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 2 x num_heads ({2 * self.num_heads}): "
                "every head needs the same even width"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self
