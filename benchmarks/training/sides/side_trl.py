"""TRL's side: SFTTrainer on the conversations as they are."""

from __future__ import annotations

from clock import Clock, watch_trainer


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    lora = orders["lora"] and LoraConfig(
        task_type="CAUSAL_LM",
        r=orders["lora"]["rank"],
        lora_alpha=orders["lora"]["alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    config = SFTConfig(
        output_dir=orders["out"],
        assistant_only_loss=orders["learn"] == "answers",
        max_length=orders["max_length"],
        num_train_epochs=1,
        learning_rate=orders["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=orders["seed"],
        use_cpu=True,
        bf16=orders["format"] == "bf16",
        save_strategy="no",
        report_to="none",
        model_init_kwargs={"dtype": "float32"},
        **orders["settings"],
    )
    rows = load_dataset("json", data_files=orders["rows"], split="train")
    steps = watch_trainer(clock)
    trainer = SFTTrainer(model=orders["model"], args=config, train_dataset=rows, peft_config=lora or None, callbacks=[steps])
    trainer.train()
    trainer.save_model(orders["out"])
    clock.saved()


if __name__ == "__main__":
    main()
