"""Arguments that users of transformers and TRL may write out of habit, and their replacements."""

TUNE_HABITS = {
    **dict.fromkeys(("output_dir", "resume_from_checkpoint", "checkpoint_dir"), "checkpoint=..."),
    "save_steps": "checkpoint_every=...",
    "max_steps": "steps=...",
    **dict.fromkeys(("num_epochs", "num_train_epochs"), "epochs=..."),
    "learning_rate": "lr=...",
    "per_device_train_batch_size": "batch_size=..., and micro_batch_tokens=... for what memory holds",
    **dict.fromkeys(("micro_batch", "micro_batch_size"), "micro_batch_tokens=..."),
    "gradient_accumulation_steps": "nothing: a batch goes through the model in parts of micro_batch_tokens",
    **dict.fromkeys(("bf16", "fp16", "mixed_precision"), 'dtype="bfloat16"'),
    **dict.fromkeys(("warmup_ratio", "warmup_steps"), "warmup=..., a share of the steps"),
    "max_grad_norm": "max_norm=...",
    **dict.fromkeys(("max_seq_length", "max_seq_len"), "max_length=..."),
    **dict.fromkeys(("peft_config", "lora_r", "lora_alpha"), "lora={...}"),
}
