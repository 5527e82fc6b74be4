"""PyTorch for programs made of language-model calls.

Write a program of LM calls as an `nn.Module` with ordinary Python control flow. Its instructions,
demos and local weights are parameters: a metric gives the loss, `loss.backward()` a gradient for
each kind of parameter, `optimizer.step()` improves them.

    import promptgrad as pg
    from promptgrad import nn, optim

    model = nn.ChainOfThought("question -> answer").to("openai/gpt-4o-mini")
    report = pg.evaluate(model, devset, metric=pg.metrics.exact_match)

This page is the front door: every name is imported from its room when it is first used, so
`import promptgrad` itself loads nothing and does no I/O. The rooms (`nn`, `optim`, `data`, `lm`,
`metrics`, ...) are attributes as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.3.0"

if TYPE_CHECKING:
    from promptgrad import (
        adapters,
        aio,
        autograd,
        content,
        data,
        errors,
        evaluation,
        extend,
        finetune,
        func,
        lm,
        metrics,
        nn,
        optim,
        retrieve,
        run,
        sandbox,
        search,
        signature,
        testing,
        tools,
        train,
        viz,
    )
    from promptgrad._seed import manual_seed
    from promptgrad.adapters import Tool
    from promptgrad.aio import Executor
    from promptgrad.autograd import (
        Choice,
        Parameter,
        Text,
        clip_grad_tokens_,
        detect_anomaly,
        enable_grad,
        inference_mode,
        is_grad_enabled,
        no_grad,
    )
    from promptgrad.content import Audio, Citation, Code, Document, File, History, Image, Reasoning
    from promptgrad.data import Example, Score
    from promptgrad.evaluation import aevaluate, evaluate
    from promptgrad.lm import LM, Embedder, ToolCall, Usage, configure, context, deadline, track_usage, usage
    from promptgrad.nn import export, inspect_history, op, summary
    from promptgrad.run import Budget
    from promptgrad.signature import Input, Output, Signature
    from promptgrad.tools import Toolset
    from promptgrad.train import Callback, Trainer, acompile, agradcheck, compile, gradcheck, load, load_dspy, save

__all__ = [
    "LM",
    "Audio",
    "Budget",
    "Callback",
    "Choice",
    "Citation",
    "Code",
    "Document",
    "Embedder",
    "Example",
    "Executor",
    "File",
    "History",
    "Image",
    "Input",
    "Output",
    "Parameter",
    "Reasoning",
    "Score",
    "Signature",
    "Text",
    "Tool",
    "ToolCall",
    "Toolset",
    "Trainer",
    "Usage",
    "__version__",
    "acompile",
    "adapters",
    "aevaluate",
    "agradcheck",
    "aio",
    "autograd",
    "clip_grad_tokens_",
    "compile",
    "configure",
    "content",
    "context",
    "data",
    "deadline",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "extend",
    "finetune",
    "func",
    "gradcheck",
    "inference_mode",
    "inspect_history",
    "is_grad_enabled",
    "lm",
    "load",
    "load_dspy",
    "manual_seed",
    "metrics",
    "nn",
    "no_grad",
    "op",
    "optim",
    "retrieve",
    "run",
    "sandbox",
    "save",
    "search",
    "signature",
    "summary",
    "testing",
    "tools",
    "track_usage",
    "train",
    "usage",
    "viz",
]

# Where each public name lives; a room is its own home.
_HOME = {
    "LM": "lm",
    "Audio": "content",
    "Budget": "run",
    "Callback": "train",
    "Citation": "content",
    "Code": "content",
    "Choice": "autograd",
    "Document": "content",
    "Embedder": "lm",
    "Example": "data",
    "Executor": "aio",
    "File": "content",
    "History": "content",
    "Image": "content",
    "Input": "signature",
    "Output": "signature",
    "Parameter": "autograd",
    "Reasoning": "content",
    "Score": "data",
    "Signature": "signature",
    "Text": "autograd",
    "Tool": "adapters",
    "ToolCall": "lm",
    "Toolset": "tools",
    "Trainer": "train",
    "Usage": "lm",
    "acompile": "train",
    "aevaluate": "evaluation",
    "agradcheck": "train",
    "clip_grad_tokens_": "autograd",
    "compile": "train",
    "configure": "lm",
    "context": "lm",
    "deadline": "lm",
    "detect_anomaly": "autograd",
    "enable_grad": "autograd",
    "evaluate": "evaluation",
    "export": "nn",
    "gradcheck": "train",
    "inference_mode": "autograd",
    "inspect_history": "nn",
    "is_grad_enabled": "autograd",
    "load": "train",
    "load_dspy": "train",
    "manual_seed": "_seed",
    "no_grad": "autograd",
    "op": "nn",
    "save": "train",
    "summary": "nn",
    "track_usage": "lm",
    "usage": "lm",
}

_ROOMS = (
    "adapters",
    "aio",
    "autograd",
    "content",
    "data",
    "errors",
    "evaluation",
    "extend",
    "finetune",
    "func",
    "lm",
    "metrics",
    "nn",
    "optim",
    "retrieve",
    "run",
    "sandbox",
    "search",
    "signature",
    "testing",
    "tools",
    "train",
    "viz",
)

# What a user of PyTorch or DSPy may type out of habit, and what to write here.
_ELSEWHERE = {
    "Adapter": "promptgrad.adapters.Adapter",
    "Assert": "promptgrad.nn.Assert(condition, reason)",
    "BestOfN": "promptgrad.nn.BestOfN",
    "BlackboxLLM": "promptgrad.nn.Predict('question -> answer', instruction=...)",
    "BootstrapFewShot": "promptgrad.optim.BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch": "promptgrad.optim.RandomSearch",
    "BootstrapFinetune": "promptgrad.optim.BootstrapFinetune",
    "COPRO": "promptgrad.optim.MIPRO(params, num_demo_sets=0)",
    "Cache": "promptgrad.lm.Cache",
    "ChainOfThought": "promptgrad.nn.ChainOfThought",
    "CodeAct": "promptgrad.nn.CodeAct",
    "CodeInterpreter": "promptgrad.sandbox.Interpreter",
    "ColBERTv2": "promptgrad.nn.Retrieve(function, k), with a function of (query, k) that asks the service",
    "ChatAdapter": "promptgrad.adapters.ChatAdapter",
    "DataLoader": "promptgrad.data.DataLoader",
    "EarlyStopping": "promptgrad.train.EarlyStopping(patience=10), in Trainer(callbacks=[...])",
    "Evaluate": "promptgrad.evaluate(program, data, metric)",
    "InputField": "promptgrad.Input",
    "JSONAdapter": "promptgrad.adapters.JSONAdapter",
    "KNNFewShot": "promptgrad.optim.KNNFewShot",
    "LabeledFewShot": "promptgrad.optim.LabeledFewShot",
    "MIPRO": "promptgrad.optim.MIPRO",
    "MIPROv2": "promptgrad.optim.MIPRO(params, auto='light')",
    "ModelCheckpoint": "promptgrad.train.ModelCheckpoint(path), in Trainer(callbacks=[...])",
    "Module": "promptgrad.nn.Module",
    "OutputField": "promptgrad.Output",
    "MultiChainComparison": "promptgrad.nn.MultiChainComparison",
    "Parallel": "promptgrad.nn.Parallel",
    "Predict": "promptgrad.nn.Predict",
    "Prediction": "promptgrad.nn.Prediction",
    "ProgramOfThought": "promptgrad.nn.ProgramOfThought",
    "PythonInterpreter": "promptgrad.sandbox.Monty",
    "GEPA": "promptgrad.optim.GEPA",
    "Refine": "promptgrad.nn.Refine",
    "Retrieve": "promptgrad.nn.Retrieve(index, k=3)",
    "SIMBA": "promptgrad.optim.GEPA or promptgrad.optim.TGD",
    "Suggest": "promptgrad.nn.Suggest(condition, reason)",
    "RLM": "promptgrad.nn.RLM",
    "ReAct": "promptgrad.nn.ReAct",
    "TGD": "promptgrad.optim.TGD",
    "Tensor": "promptgrad.Text",
    "TextGrad": "promptgrad.optim.TGD",
    "TextLoss": "promptgrad.nn.JudgeLoss(rubric, lm=...)",
    "TextualGradientDescent": "promptgrad.optim.TGD",
    "Variable": "promptgrad.Parameter, or promptgrad.Text",
    "asyncify": "await program.acall(...)",
    "clip_grad_norm_": "promptgrad.clip_grad_tokens_(program.parameters(), max_tokens)",
    "cuda": "program.to(lm): the device of a program is its language model",
    "dataset": "promptgrad.data",
    "datasets": "promptgrad.data",
    "device": "program.to(lm): the device of a program is its language model",
    "exact_match": "promptgrad.metrics.exact_match",
    "functional": "promptgrad.nn",
    "get_engine": "promptgrad.LM(name)",
    "seed": "promptgrad.manual_seed",
    "set_grad_enabled": "promptgrad.no_grad() or promptgrad.enable_grad()",
    "set_backward_engine": "promptgrad.configure(critic=...), or critic= of a criterion",
    "streamify": "program.stream(...), or program.stream_sync(...) in plain code",
    "sum": "criterion(outputs, examples) for a whole batch; losses also add, loss + other",
    "retrievers": "promptgrad.retrieve",
    "settings": "promptgrad.configure(lm=...) for the process, promptgrad.context(lm=...) for a block",
    "teleprompt": "promptgrad.optim",
    "tensor": "promptgrad.Text",
    "track": "promptgrad.track_usage",
    "vmap": "promptgrad.func.vmap, or module.map(batch)",
    "grad": "promptgrad.func.grad",
    "majority": "promptgrad.nn.majority",
    "functional_call": "promptgrad.func.functional_call",
    "utils": "promptgrad.data for loaders, promptgrad.evaluation for reports, promptgrad.clip_grad_tokens_ to clip",
    **{name: f"promptgrad.optim.{name}" for name in ("BetterTogether", "Ensemble")},
    **dict.fromkeys(("AvatarOptimizer", "InferRules"), "promptgrad.optim.TGD, GEPA or Auto"),
    "BaseLM": "promptgrad.lm.Transport, or a function in promptgrad.lm.FunctionLM",
    "BaseModule": "promptgrad.nn.Module",
    "BootstrapFewShotWithOptuna": "promptgrad.optim.MIPRO(params, num_candidates=0)",
    "BootstrapRS": "promptgrad.optim.RandomSearch",
    "Completions": "program.map([item], n=5)",
    "Embeddings": "promptgrad.retrieve.Dense(passages, embedder)",
    "EmbeddingsWithScores": "promptgrad.retrieve.Dense(passages, embedder), whose passages have .score",
    "FinalOutput": "submit(...), which code in a sandbox calls with its result",
    "Flex": "nothing: the code of a program is yours",
    "KNN": "promptgrad.nn.Neighbours(examples, k=3), as demos= of a Predict",
    **dict.fromkeys(("LocalInterpreter", "resolve_interpreter_factory"), "interpreter=..., of promptgrad.sandbox"),
    **dict.fromkeys(("CodeExecutionError", "CodeInterpreterError"), "promptgrad.errors.SandboxError"),
    **dict.fromkeys(("OldField", "OldInputField"), "promptgrad.Input"),
    "OldOutputField": "promptgrad.Output",
    **dict.fromkeys(("Provider", "TrainingJob"), "promptgrad.finetune.job or promptgrad.finetune.attach"),
    "ReActV2": "promptgrad.nn.ReAct(signature, tools, native=True)",
    "SandboxSerializable": "nothing: inputs of code are plain data",
    "SemanticF1": "promptgrad.nn.Judge(rubric)",
    "SignatureMeta": "promptgrad.Signature",
    "ToolCallResults": "toolset.results(calls), in a message",
    "ToolCalls": "list[promptgrad.ToolCall]",
    "TwoStepAdapter": "adapter=promptgrad.adapters.two_step(extractor_lm=...)",
    "Type": "a pydantic model as the type of a field, or a type of promptgrad.content",
    "XMLAdapter": "adapter='xml'",
    "bootstrap_trace_data": "promptgrad.finetune.collect(program, data, metric)",
    "configure_cache": "promptgrad.configure(cache='folder')",
    **dict.fromkeys(
        (
            *("configure_dspy_loggers", "enable_logging", "disable_logging"),
            *("enable_litellm_logging", "disable_litellm_logging"),
        ),
        "nothing: there are no logs; promptgrad.inspect_history() shows calls, Trainer(callbacks=[...]) tells of a run",
    ),
    **dict.fromkeys(("ensure_signature", "make_signature"), "promptgrad.Signature(...)"),
    "infer_prefix": "nothing: fields have no prefixes",
    "is_retryable_lm_error": "error.transient",
    "load_settings": "promptgrad.configure(...) in code",
    "syncify": "program(...), which waits by itself",
    **dict.fromkeys(("AdapterParseError", "LMStreamAssemblyError"), "promptgrad.errors.ParseError or LMReplyError"),
    "DSPyError": "promptgrad.errors.PromptgradError",
    **dict.fromkeys(
        (
            *("ContextWindowExceededError", "LMAuthError", "LMBillingError", "LMCollectionLimitError"),
            *("LMConfigurationError", "LMError", "LMInvalidRequestError", "LMLockTimeoutError"),
            *("LMNotConfiguredError", "LMProviderError", "LMRateLimitError", "LMServerError", "LMTimeoutError"),
            *("LMTransportError", "LMUnexpectedError", "LMUnsupportedFeatureError", "LMUnsupportedModelError"),
        ),
        "an error of promptgrad.errors, such as LMError: docs/guide/from_dspy.md has the table",
    ),
}

if not TYPE_CHECKING:

    def __getattr__(name):
        from importlib import import_module

        if name in _HOME:
            value = getattr(import_module(f"promptgrad.{_HOME[name]}"), name)
            globals()[name] = value
            return value
        if name in _ROOMS:
            return import_module(f"promptgrad.{name}")
        raise AttributeError(_no_such_name(name))


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__name__", "__file__", "__path__"})


def _no_such_name(name: str) -> str:
    message = f"module 'promptgrad' has no attribute {name!r}"
    if name.startswith("__"):
        return message
    if name in _ELSEWHERE:
        return f"{message}: write {_ELSEWHERE[name]}"
    from difflib import get_close_matches

    known = {**{ported.lower(): text for ported, text in _ELSEWHERE.items()}}
    known.update({public.lower(): f"promptgrad.{public}" for public in __all__})
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    return f"{message}: did you mean {known[close[0]]}?" if close else message
