"""Arguments that users of DSPy, gepa and TextGrad may write out of habit, and their replacements."""

_SPEED = "nothing: there is no lr here; how far a step may go is max_edit=... of TGD"
TORCH_HABITS = {
    **dict.fromkeys(("lr", "learning_rate"), _SPEED),
    "weight_decay": "nothing: a price on length is length_price=... of TGD",
    **dict.fromkeys(
        (
            "momentum",
            "betas",
            "eps",
            "dampening",
            "nesterov",
            "amsgrad",
            "foreach",
            "fused",
            "capturable",
            "decoupled_weight_decay",
        ),
        "nothing: it belongs to steps along numbers, and these values are texts and demos",
    ),
    "maximize": "nothing: the score of the metric is maximized",
    "differentiable": "nothing: see promptgrad.func for programs as functions of their parameters",
    **dict.fromkeys(("epochs", "num_epochs", "max_steps", "num_steps"), "steps=..., or a budget of the Trainer"),
}

GEPA_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(
        ("auto", "max_metric_calls", "max_full_evals"),
        "promptgrad.Trainer(..., budget=promptgrad.Budget(calls=...)) for what it costs, and steps=... for its length",
    ),
    **dict.fromkeys(
        ("metric", "valset", "trainset"), "promptgrad.Trainer(model, GEPA(...), metric=...).fit(train, val)"
    ),
    **dict.fromkeys(("seed", "num_threads", "log_dir"), "promptgrad.Trainer(..., seed=, concurrency=, run_dir=)"),
    **dict.fromkeys(
        ("reflection_lm", "task_lm", "prompt_model"), "lm=... writes the new texts; model.to(lm) runs them"
    ),
    "reflection_minibatch_size": "minibatch_size=...",
    **dict.fromkeys(("use_merge", "max_merge_invocations"), "max_merges=..., 0 for none"),
    "frontier_type": 'fronts="example", "part" or "both"',
    "candidate_selection_strategy": "nothing: a parent is the incumbent or drawn by the number of its fronts",
    **dict.fromkeys(("module_selector", "component_selector"), 'components="blamed", "round_robin" or "all"'),
    **dict.fromkeys(
        ("instruction_proposer", "reflection_prompt_template"),
        "gepa.proposer, a Predict whose prompt is a parameter: gepa.proposer.instruction.data = ...",
    ),
    "failure_score": "nothing: a run that fails counts as 0",
    **dict.fromkeys(
        ("skip_perfect_score", "perfect_score"), "nothing: a minibatch without failures leads to no reflection"
    ),
    **dict.fromkeys(("track_stats", "track_best_outputs"), "nothing: FitResult.history has every candidate"),
}


_TRAINER = "promptgrad.Trainer(model, {name}(...), metric=...).fit(train, val)"
_RUN = "promptgrad.Trainer(..., seed=, concurrency=)"
_ERRORS = "nothing: a run that fails counts as 0, and a language model that is down stops the trainer"

BOOTSTRAP_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="BootstrapFewShot")),
    **dict.fromkeys(("seed", "num_threads"), _RUN),
    "teacher_settings": "teacher=... takes a language model, or a program",
    "metric_threshold": "threshold=...",
    "max_errors": _ERRORS,
}

TGD_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(("engine", "backward_engine", "optimizer_engine"), "lm=..."),
    "verbose": "print(report), the report that step() returns",
    "optimizer_system_prompt": "optimizer.proposer, a Predict whose prompt is a parameter: "
    "optimizer.proposer.instruction.data = ...",
    "in_context_examples": "demos of the writer: optimizer.proposer.demos.data = [...]",
    "new_variable_tags": "nothing: the adapter of the language model marks the fields of a reply",
    **dict.fromkeys(("lr", "learning_rate"), "max_edit=..., the largest accepted edit as a share of the text"),
    **dict.fromkeys(
        ("gradient_memory", "momentum", "momentum_window", "momentum_storage"),
        "nothing: Trainer.fit shows the writer every run with the present values, and in a loop of your own critiques "
        "add up until zero_grad()",
    ),
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="TGD")),
    **dict.fromkeys(("num_steps", "max_steps", "epochs", "num_epochs"), "steps=..."),
    "weight_decay": "length_price=..., what a token of a text costs in score",
}

MIPRO_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(
        ("metric", "valset", "trainset"), "promptgrad.Trainer(model, MIPRO(...), metric=...).fit(train, val)"
    ),
    **dict.fromkeys(("seed", "num_threads", "log_dir"), "promptgrad.Trainer(..., seed=, concurrency=, run_dir=)"),
    **dict.fromkeys(("prompt_lm", "prompt_model", "proposer_lm"), "lm=..."),
    "task_model": "model.to(lm), which sets the language model of the program",
    "teacher_settings": "teacher=... takes a language model, or a program",
    **dict.fromkeys(("num_instruct_candidates", "num_instruction_candidates"), "num_candidates=..."),
    "num_fewshot_candidates": "num_demo_sets=...",
    "init_temperature": "temperature=...",
    "minibatch": "minibatch_size=...; a minibatch of all validation examples is a full validation",
    "minibatch_full_eval_steps": "full_eval_every=...",
    "metric_threshold": "optim.BootstrapFewShot(params, threshold=...), which makes such demos alone",
    "max_errors": _ERRORS,
    **dict.fromkeys(("track_stats", "verbose"), "nothing: FitResult.history has every trial"),
    **dict.fromkeys(
        ("program_aware_proposer", "data_aware_proposer", "tip_aware_proposer", "fewshot_aware_proposer"),
        "nothing: a proposer is shown the program's modules, runs on training data, and a tip",
    ),
    "requires_permission_to_run": "Trainer.plan(train, val), which says what a run costs",
}

RANDOM_SEARCH_HABITS = {
    **BOOTSTRAP_HABITS,
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="RandomSearch")),
    **dict.fromkeys(("num_candidate_sets", "num_candidates"), "num_candidate_programs=..."),
    "stop_at_score": "nothing: a candidate with the full score on every validation example ends the race",
    "restrict": "nothing: num_candidate_programs=0 leaves the three candidates that are not drawn",
}

AUTO_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="Auto")),
    **dict.fromkeys(("seed", "num_threads", "log_dir"), "promptgrad.Trainer(..., seed=, concurrency=, run_dir=)"),
    **dict.fromkeys(
        ("auto", "budget", "max_metric_calls"), "promptgrad.Trainer(..., budget=promptgrad.Budget(calls=...))"
    ),
    **dict.fromkeys(("reflection_lm", "prompt_model", "engine"), "lm=..."),
    **dict.fromkeys(("max_bootstrapped_demos", "max_labeled_demos"), "demos=(...), the numbers of demos to try"),
}

LABELED_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="LabeledFewShot")),
    "sample": "nothing: Trainer.fit draws the demos by its seed",
    "max_labeled_demos": "k=...",
    **dict.fromkeys(("seed", "num_threads"), _RUN),
}

KNN_HABITS = {
    **TORCH_HABITS,
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="KNNFewShot")),
    **dict.fromkeys(
        ("embedder", "embedding"), "vectorizer=..., a promptgrad.Embedder or a function of a list of texts"
    ),
    **dict.fromkeys(
        ("max_bootstrapped_demos", "max_labeled_demos", "few_shot_bootstrap_args"),
        "k=...; optim.BootstrapFewShot makes demos of runs",
    ),
    **dict.fromkeys(("seed", "num_threads"), _RUN),
}

ENSEMBLE_HABITS = {
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="Ensemble")),
    "reduce_fn": "reduce=...",
    "deterministic": "nothing: every member is asked",
    "programs": "promptgrad.nn.Ensemble(programs, reduce=...), for programs that you have",
    "params": "optim.Ensemble(optim.MIPRO(params), size=3): it takes an optimizer",
}

FINETUNE_HABITS = {
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="BootstrapFinetune")),
    **dict.fromkeys(("seed", "num_threads"), _RUN),
    "train_kwargs": "lora=, steps=, epochs=, lr=, batch_size=",
    "multitask": "nothing: modules on one model are trained together",
    "adapter": "nn.Predict(..., adapter=...)",
    "exclude_demos": "max_labeled_demos=0",
    **dict.fromkeys(("learning_rate",), "lr=..."),
    **dict.fromkeys(("num_epochs", "num_train_epochs"), "epochs=..."),
    "max_steps": "steps=...",
    "per_device_train_batch_size": "batch_size=..., and micro_batch_tokens=... for what memory holds",
    "gradient_accumulation_steps": "nothing: a batch goes through the model in parts of micro_batch_tokens",
    **dict.fromkeys(("bf16", "fp16", "mixed_precision"), 'dtype="bfloat16"'),
    **dict.fromkeys(("output_dir", "resume_from_checkpoint"), "run_dir=... in Trainer(...)"),
    **dict.fromkeys(("lora_r", "lora_alpha", "peft_config"), "lora={...}"),
}

GRPO_HABITS = {
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="GRPO")),
    **dict.fromkeys(("seed", "num_threads"), _RUN),
    "train_kwargs": "lora=, lr=, clip=, inner=, kl=",
    **dict.fromkeys(
        ("multitask", "variably_invoked_predictor_grouping_mode"),
        "nothing: a group is the runs of an example, and every call of a run has its advantage",
    ),
    "adapter": "nn.Predict(..., adapter=...)",
    "exclude_demos": "nothing: the model learns the prompts as the program sends them",
    **dict.fromkeys(("num_train_steps", "max_steps"), "steps=..."),
    **dict.fromkeys(("num_rollouts_per_grpo_step", "num_generations"), "n=..."),
    **dict.fromkeys(("num_dspy_examples_per_grpo_step", "per_device_train_batch_size"), "batch_size=..."),
    **dict.fromkeys(
        ("use_train_as_val", "num_steps_for_val", "report_train_scores"),
        "nothing: the trained program is measured once, on data that it was not trained on",
    ),
    "failure_score": "nothing: a run that fails otherwise than by its reply is in no group",
    "format_failure_score": "format_penalty=..., which is subtracted",
    **dict.fromkeys(("learning_rate",), "lr=..."),
    **dict.fromkeys(("num_epochs", "num_train_epochs"), "epochs=..."),
    "beta": "kl=...",
    **dict.fromkeys(("epsilon", "epsilon_high"), "clip=..., one bound or two"),
    "num_iterations": "inner=...",
    "loss_type": "nothing: the loss is a sum over tokens, as in Dr. GRPO",
    **dict.fromkeys(("lora_r", "lora_alpha", "peft_config"), "lora={...}"),
}

TOGETHER_HABITS = {
    **dict.fromkeys(
        ("prompt_optimizer", "weight_optimizer"),
        "BetterTogether('p -> w -> p', p=optim.MIPRO(...), w=optim.BootstrapFinetune(...))",
    ),
    **dict.fromkeys(("metric", "valset", "trainset"), _TRAINER.format(name="BetterTogether")),
    **dict.fromkeys(("seed", "num_threads"), _RUN),
}
