"""LLaMA-Factory's side: its own experiment runner on the conversations, with the task's template registered."""

from __future__ import annotations

import json
from pathlib import Path

from clock import Clock, watch_trainer


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    from llamafactory.data.formatter import StringFormatter
    from llamafactory.data.template import register_template
    from llamafactory.train.tuner import run_exp

    register_template(
        name="benchmark",
        format_user=StringFormatter(slots=["<|im_start|>user\n{{content}}<|im_end|><|im_start|>assistant\n"]),
        format_assistant=StringFormatter(slots=["{{content}}<|im_end|>"]),
        format_system=StringFormatter(slots=["<|im_start|>system\n{{content}}<|im_end|>"]),
        stop_words=["<|im_end|>"],
    )
    names = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": Path(orders["rows"]).name, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": names}
    data = Path(orders["scratch"]) / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    (data / entry["file_name"]).write_bytes(Path(orders["rows"]).read_bytes())
    lora = {
        "lora_rank": (orders["lora"] or {}).get("rank"),
        "lora_alpha": (orders["lora"] or {}).get("alpha"),
        "lora_target": "all",
        "lora_dropout": 0.0,
    }
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": orders["model"],
            "finetuning_type": "lora" if orders["lora"] else "full",
            **(lora if orders["lora"] else {}),
            "dataset": "rows",
            "dataset_dir": str(data),
            "template": "benchmark",
            "train_on_prompt": orders["learn"] == "everything",
            "cutoff_len": orders["max_length"],
            "output_dir": orders["out"],
            "num_train_epochs": 1,
            "learning_rate": orders["learning_rate"],
            "lr_scheduler_type": "constant",
            "adam_beta2": 0.95,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "seed": orders["seed"],
            "use_cpu": True,
            "bf16": orders["format"] == "bf16",
            "infer_dtype": "float32",
            "save_strategy": "no",
            "report_to": "none",
            **orders["settings"],
        },
        callbacks=[watch_trainer(clock)],
    )
    clock.saved()


if __name__ == "__main__":
    main()
