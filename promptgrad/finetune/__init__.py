"""Weights of local models: collect the calls of successful runs, and train on them."""

from promptgrad.finetune._sample import Collected, Conversation, acollect, collect, labeled, samples_of
from promptgrad.finetune._sft import LORA, SFTResult, asft, local_lm, sft
from promptgrad.finetune._train import TuneSettings

__all__ = [
    "LORA",
    "Collected",
    "Conversation",
    "SFTResult",
    "TuneSettings",
    "acollect",
    "asft",
    "collect",
    "labeled",
    "local_lm",
    "samples_of",
    "sft",
]
