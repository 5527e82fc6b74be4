"""Weights: collect calls of successful runs, or better and worse ones, and train a local or a provider's model."""

from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._dpo import adpo, dpo
from promptgrad.finetune._grpo import agrpo, grpo
from promptgrad.finetune._job_server import JobEvent
from promptgrad.finetune._jobs import ajob, attach, job, job_lms
from promptgrad.finetune._jsonl import load_conversations, load_preferences
from promptgrad.finetune._local_lms import LORA, local_lm, local_lms
from promptgrad.finetune._place import is_served
from promptgrad.finetune._preference import Preferences, acollect_preferences, collect_preferences
from promptgrad.finetune._rollouts import Rollouts, RolloutStep
from promptgrad.finetune._sample import Collected, acollect, collect, labeled, samples_of
from promptgrad.finetune._sft import adistill, asft, distill, sft
from promptgrad.finetune._training import TuneSettings
from promptgrad.finetune._training_job import JobResult, TrainingJob
from promptgrad.finetune._tune import TuneResult

__all__ = [
    "LORA",
    "Collected",
    "Conversation",
    "JobEvent",
    "JobResult",
    "Preference",
    "Preferences",
    "RolloutStep",
    "Rollouts",
    "TrainingJob",
    "TuneResult",
    "TuneSettings",
    "acollect",
    "acollect_preferences",
    "adistill",
    "adpo",
    "agrpo",
    "ajob",
    "asft",
    "attach",
    "collect",
    "collect_preferences",
    "distill",
    "dpo",
    "grpo",
    "is_served",
    "job",
    "job_lms",
    "labeled",
    "load_conversations",
    "load_preferences",
    "local_lm",
    "local_lms",
    "samples_of",
    "sft",
]
