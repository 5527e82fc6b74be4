"""Arguments that users of PyTorch Lightning, Hugging Face and DSPy may write out of habit, and their replacements."""

_DATA = "Trainer.fit(trainset, valset, testset)"

TRAINER_HABITS = {
    **dict.fromkeys(
        ("trainset", "valset", "testset", "devset", "train_dataset", "eval_dataset", "train_dataloaders", "data"), _DATA
    ),
    **dict.fromkeys(
        ("patience", "early_stopping_patience"),
        "callbacks=[train.EarlyStopping(patience)]; optim.TGD and optim.Auto have patience=... in steps",
    ),
    "early_stopping": "callbacks=[train.EarlyStopping(patience)]",
    **dict.fromkeys(
        ("max_epochs", "epochs", "num_epochs", "min_epochs", "max_steps", "num_train_epochs", "steps"),
        "steps=... of the optimizer, or budget=promptgrad.Budget(calls=...)",
    ),
    **dict.fromkeys(
        ("auto", "max_metric_calls", "max_time", "max_calls"), "budget=promptgrad.Budget(calls=..., seconds=...)"
    ),
    **dict.fromkeys(("num_threads", "max_workers", "num_workers"), "concurrency=..."),
    **dict.fromkeys(("default_root_dir", "output_dir", "log_dir", "checkpoint_dir", "save_dir"), "run_dir=..."),
    **dict.fromkeys(
        ("accelerator", "devices", "precision", "strategy", "num_nodes", "gpus", "device", "benchmark"),
        "model.to(lm): the device of a program is its language model",
    ),
    **dict.fromkeys(("logger", "log_every_n_steps", "report_to"), "callbacks=[promptgrad.Callback, ...]"),
    **dict.fromkeys(("enable_progress_bar", "display_progress", "disable_progress_bar", "verbose"), "progress=..."),
    **dict.fromkeys(("deterministic", "random_state"), "seed=..."),
    **dict.fromkeys(("lr", "learning_rate"), "max_edit=... of optim.TGD, the bound on how far a step may go"),
    **dict.fromkeys(
        ("gradient_clip_val", "max_grad_norm"), "nothing: TGD(max_evidence=...) bounds what a writer is shown"
    ),
    **dict.fromkeys(("accumulate_grad_batches", "batch_size"), "batch_size=... of the optimizer"),
    **dict.fromkeys(("criterion", "loss_fn", "loss", "compute_metrics", "metrics"), "metric=..."),
    **dict.fromkeys(("optimizers", "teleprompter"), "Trainer(model, optimizer, metric=...)"),
    **dict.fromkeys(("program", "student", "module"), "Trainer(model, optimizer, metric=...)"),
    **dict.fromkeys(
        ("prompt_model", "reflection_lm", "lm"), "lm=... of the optimizer; model.to(lm) sets that of the program"
    ),
    **dict.fromkeys(("max_errors", "failure_score"), "nothing: a run that fails counts as 0"),
    **dict.fromkeys(("resume_from_checkpoint", "ckpt_path"), "Trainer.resume(run_dir, model, optimizer, metric)"),
}

FIT_HABITS = {
    **dict.fromkeys(
        (
            "train_dataloaders",
            "train_dataloader",
            "val_dataloaders",
            "train",
            "val",
            "test",
            "train_dataset",
            "eval_dataset",
            "devset",
            "datamodule",
            "data",
        ),
        _DATA,
    ),
    **{
        name: TRAINER_HABITS[name] for name in ("epochs", "max_epochs", "num_epochs", "steps", "patience", "batch_size")
    },
    **dict.fromkeys(("metric", "budget", "callbacks", "seed", "run_dir", "progress"), "it in Trainer(...)"),
    **dict.fromkeys(("num_threads", "concurrency"), "concurrency=... in Trainer(...)"),
    **{name: TRAINER_HABITS[name] for name in ("ckpt_path", "resume_from_checkpoint")},
}

COMPILE_HABITS = {
    **dict.fromkeys(("student", "model", "module"), "compile(program, trainset, metric)"),
    **dict.fromkeys(("devset", "eval_dataset"), "valset=..."),
    **dict.fromkeys(("auto", "size", "max_metric_calls"), 'budget="light", "medium", "heavy" or a Budget'),
    **dict.fromkeys(("num_threads", "max_workers"), "concurrency=..."),
    **dict.fromkeys(("teleprompter", "optimizer_cls"), "optimizer=optim.MIPRO, or another function of the parameters"),
    **dict.fromkeys(("prompt_model", "reflection_lm"), "lm=..."),
    **dict.fromkeys(("log_dir", "output_dir"), "run_dir=..."),
    **dict.fromkeys(
        ("max_bootstrapped_demos", "max_labeled_demos", "num_trials", "minibatch_size"),
        "optimizer=lambda params: optim.MIPRO(params, ...)",
    ),
    **dict.fromkeys(
        ("fullgraph", "dynamic", "backend", "mode"),
        "nothing: this is DSPy's compile, which improves a program, not torch's",
    ),
}
