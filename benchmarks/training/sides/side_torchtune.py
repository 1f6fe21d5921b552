"""torchtune's side: its single-device recipes. Version 0.6.1 knows no jinja template, so the layout is written out here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from clock import Clock


class Layout:
    """The task's ChatML as torchtune's model transform: messages to tokens and a mask of what is not learned."""

    pad_id = 0

    def __init__(self, path: str, learn: str) -> None:
        from tokenizers import Tokenizer

        self._learn = learn
        self._tokenizer = Tokenizer.from_file(path)

    def __call__(self, sample: dict[str, Any], inference: bool = False) -> dict[str, Any]:  # noqa: ARG002 - torchtune passes it
        tokens: list[int] = []
        mask: list[bool] = []
        for message in sample.pop("messages"):
            opening = self._tokenizer.encode(f"<|im_start|>{message.role}\n", add_special_tokens=False).ids
            content = self._tokenizer.encode(f"{message.text_content}<|im_end|>", add_special_tokens=False).ids
            tokens += opening + content
            learned = self._learn == "everything" or message.role == "assistant"
            mask += [self._learn != "everything"] * len(opening) + [not learned] * len(content)
        return {**sample, "tokens": tokens, "mask": mask}


def conversations(tokenizer: Layout, *, source: str, max_length: int, packed: bool) -> Any:
    """The rows as torchtune's own packed or plain dataset."""
    from torchtune.data import OpenAIToMessages
    from torchtune.datasets import PackedDataset, SFTDataset

    rows = SFTDataset(
        source="json", data_files=source, split="train", message_transform=OpenAIToMessages(), model_transform=tokenizer
    )
    return PackedDataset(rows, max_seq_len=max_length, padding_idx=tokenizer.pad_id) if packed else rows


def constant(optimizer: Any, **_: Any) -> Any:
    """The schedule that every side has."""
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, lambda _: 1.0)


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    from omegaconf import OmegaConf

    class Watched(_recipe(is_lora=bool(orders["lora"]))):  # type: ignore[misc]
        def _loss_step(self, batch: dict[str, Any]) -> Any:
            clock.supervised += int((batch["labels"] != self._loss_fn.ignore_index).sum())
            return super()._loss_step(batch)

        def _setup_lr_scheduler(self, **settings: Any) -> Any:
            scheduler = super()._setup_lr_scheduler(**settings)
            self._optimizer.register_step_post_hook(lambda *_: clock.step())
            return scheduler

    recipe = Watched(OmegaConf.create(_configuration(orders)))
    recipe.setup(cfg=OmegaConf.create(_configuration(orders)))
    recipe.train()
    recipe.cleanup()
    clock.saved(saved_in="epoch_0")


def _recipe(*, is_lora: bool) -> Any:
    """Find a recipe, which torchtune ships beside itself and refuses to have imported as part of a package."""
    import torchtune

    sys.path.append(str(Path(torchtune.__file__).parents[1] / "recipes"))
    if is_lora:
        from lora_finetune_single_device import LoRAFinetuneRecipeSingleDevice as Recipe
    else:
        from full_finetune_single_device import FullFinetuneRecipeSingleDevice as Recipe
    return Recipe


def _shape(orders: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    """The model as torchtune describes it, from its config.json."""
    lora = orders["lora"] and {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2",
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": orders["lora"]["rank"],
        "lora_alpha": orders["lora"]["alpha"],
        "lora_dropout": 0.0,
    }
    return {
        **(lora or {"_component_": "torchtune.models.llama3_2.llama3_2"}),
        "vocab_size": shape["vocab_size"],
        "num_layers": shape["num_hidden_layers"],
        "num_heads": shape["num_attention_heads"],
        "num_kv_heads": shape["num_key_value_heads"],
        "embed_dim": shape["hidden_size"],
        "intermediate_dim": shape["intermediate_size"],
        "max_seq_len": shape["max_position_embeddings"],
        "norm_eps": shape["rms_norm_eps"],
        "rope_base": int(shape["rope_parameters"]["rope_theta"]),
        "scale_factor": 1,  # a Llama 3.2 whose rotary angles are not stretched is the task's Llama
    }


def _configuration(orders: dict[str, Any]) -> dict[str, Any]:
    model = Path(orders["model"])
    settings = dict(orders["settings"])
    return {
        "output_dir": orders["out"],
        "model": _shape(orders, json.loads((model / "config.json").read_text())),
        "tokenizer": {"_component_": "side_torchtune.Layout", "path": str(model / "tokenizer.json"), "learn": orders["learn"]},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": str(model),
            "checkpoint_files": ["model.safetensors"],
            "recipe_checkpoint": None,
            "output_dir": orders["out"],
            "model_type": "LLAMA3_2",
        },
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": True,
        "dataset": {
            "_component_": "side_torchtune.conversations",
            "source": orders["rows"],
            "max_length": orders["max_length"],
            "packed": settings.pop("packed"),
        },
        "seed": orders["seed"],
        "shuffle": True,
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "lr": orders["learning_rate"],
            "betas": [0.9, 0.95],
            "weight_decay": 0.0,
            "fused": True,
        },
        "optimizer_in_bwd": False,
        "lr_scheduler": {"_component_": "side_torchtune.constant"},
        "epochs": 1,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 1,
        "clip_grad_norm": 1.0,
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": f"{orders['scratch']}/logs"},
        "device": "cpu",
        "dtype": orders["format"],
        **settings,
    }


if __name__ == "__main__":
    main()
