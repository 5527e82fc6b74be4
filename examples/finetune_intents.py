"""Real questions of bank customers: a small Llama learns to name what they ask for, beside a bag of words.

    python examples/finetune_intents.py                # offline, no key, a few minutes on two cores
    python examples/finetune_intents.py --quick        # seconds: everything runs, nothing is learnt to the end

A tokenizer and a Llama of half a million weights are made here. The seed draws the intents to learn; on the others the
Llama is trained first, all weights from random ones: this base knows how customers speak and the form of a reply, and
none of the new intents. Then the program, a single `Predict` whose output is one of the new labels, is fine-tuned on
ten labelled questions of each, once with a LoRA and once with all weights, and measured on questions that nothing has
seen. The same training questions go to a logistic regression on words and pairs of words (scikit-learn), which is hard
to beat with so few of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

import promptgrad as pg
from promptgrad import data, evaluation, finetune, nn
from promptgrad.data import Example
from promptgrad.lm import Local, Request
from promptgrad.metrics import exact_match

DATA = Path(__file__).parent / "data" / "banking77"
INSTRUCTION = "Name what the customer of a bank asks for."
CHAT = (
    "<start>{% for m in messages %}{{ '<' + m.role + '>' + m.content }}"
    "{% if m.role == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
MARKERS = (  # what a prompt and a reply have around a question and a label: one token each, as a label and a task are
    "[[ ## text ## ]]\n",
    "\n\nReply in the format above, from [[ ## intent ## ]] on.",
    "[[ ## intent ## ]]\n",
    "\n\n[[ ## completed ## ]]",
)
STEPS = {"the base": 200, "LoRA": 200, "all weights": 200}
RATES = {"the base": 3e-3, "LoRA": 5e-3, "all weights": 3e-3}
LORA = {"r": 16, "alpha": 32}
SPECIAL = ("<pad>", "<start>", "<end>", "<system>", "<user>", "<assistant>")

console = Console(width=None if Console().is_terminal else 110)


@dataclass
class Row:
    """A line of the table: who answered, each question right (1.0) or wrong, and its training in CPU seconds."""

    name: str
    weights: int
    seconds: float
    scores: list[float]


def arguments(about: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--intents", type=int, default=30, help="how many of the 77 intents, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0, help="of the intents, the weights and the order of training")
    parser.add_argument("--quick", action="store_true", help="three intents and two steps, to see that it runs")
    chosen = parser.parse_args()
    if not 2 <= chosen.intents <= 77:
        parser.error(f"--intents is from 2 to 77, not {chosen.intents}")
    return chosen


def questions(part: str, intents: Sequence[str]) -> list[Example]:
    """The questions of a part of the data that have one of some intents, in lower case."""
    rows = data.read_jsonl(DATA / f"{part}.jsonl")
    kept = [row for row in rows if row["intent"] in intents]
    return [labelled(row["text"].lower(), row["intent"]) for row in kept]


def labelled(text: str, intent: str) -> Example:
    """A question as the program takes it."""
    return Example(text=text, intent=intent).with_inputs("text")


def with_gaps(examples: Sequence[Example], rng: Random, copies: int = 4, share: float = 0.2) -> list[Example]:
    """Each question, and copies of it in which a share of the words is missing: no single word is to be relied on."""
    rows = list(examples)
    for example in examples:
        for _ in range(copies):
            left = " ".join(word for word in example["text"].split() if rng.random() >= share)
            rows.append(labelled(left or example["text"], example["intent"]))
    return rows


def program_for(intents: Sequence[str]) -> nn.Module:
    """One call, whose output is one of some intents."""
    labels = {"Intent": Literal[tuple(intents)]}
    return nn.Predict("text -> intent: Intent", instruction=INSTRUCTION, types=labels, adapter="chat", retries=0)


# ---------------------------------------------------------------------------------------------------- the base


def tokenizer_of(texts: Sequence[str], markers: Sequence[str]) -> Any:
    """Byte-pair tokens of some texts; the markers are one token each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    made.train_from_iterator(texts, trainer)
    made.add_tokens(list(markers))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<start>", eos_token="<end>", chat_template=CHAT
    )


def llama(vocabulary: int, seed: int) -> Any:
    """A Llama of two layers with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.08,  # the outputs of labels that the base does not know stay as they are in a LoRA
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def edges(model: Any) -> int:
    """Inputs and outputs of all linear layers under the head: a LoRA has as many weights for each rank."""
    import torch

    head = model.get_output_embeddings()
    layers = (part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not head)
    return sum(layer.in_features + layer.out_features for layer in layers)


# ------------------------------------------------------------------------------------------------ what is compared


def answers(program: nn.Module, test: Sequence[Example]) -> list[float]:
    """Which test questions a program gets right. A reply that names no label is wrong."""
    report = pg.evaluate(program, test, exact_match(field="intent"), progress=False)
    return [0.0 if row.error is not None else row.score for row in report.rows]


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> Row | None:
    """A logistic regression on words and pairs of words; None where scikit-learn is not installed."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        return None
    begun = time.process_time()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
    model.fit([e["text"] for e in train], [e["intent"] for e in train])
    said = model.predict([e["text"] for e in test])
    scores = [float(a == e["intent"]) for a, e in zip(said, test, strict=True)]
    return Row("bag of words", model[-1].coef_.size, time.process_time() - begun, scores)


def table(rows: Sequence[Row], base: Row) -> Table:
    """The lines with their intervals, and what was gained over the base."""
    shown = Table(title=f"accuracy on {len(base.scores)} test questions, 95 % bootstrap intervals")
    for name in ("", "trained weights", "CPU seconds", "right", "more than the base"):
        shown.add_column(name, justify="left" if not name else "right")
    for row in rows:
        low, high = evaluation.mean_interval(row.scores)
        share = f"{sum(row.scores) / len(row.scores):.3f} [{low:.3f}, {high:.3f}]"
        ends = evaluation.paired_interval(base.scores, row.scores)
        gain = f"{(sum(row.scores) - sum(base.scores)) / len(base.scores):+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]"
        shown.add_row(row.name, f"{row.weights:,}", f"{row.seconds:.0f}", share, "" if row is base else gain)
    return shown


def compare(
    chosen: argparse.Namespace,
    kind: str,
    make: Callable[[int, int], Any],
    rates: Mapping[str, float],
    steps: Mapping[str, int],
) -> None:
    """Make the base, train it twice, and compare.

    Args:
        chosen: The command line.
        kind: What the model is called.
        make: Makes it, of so many tokens and by a seed.
        rates: The learning rate of each training.
        steps: Its steps.
    """
    if chosen.quick:
        steps = dict.fromkeys(steps, 2)
    rng = Random(chosen.seed)
    names = sorted({row["intent"] for row in data.read_jsonl(DATA / "train.jsonl")})
    drawn = rng.sample(names, len(names))
    number = 3 if chosen.quick else chosen.intents
    intents, others = sorted(drawn[:number]), sorted(drawn[number : 2 * number if chosen.quick else None])
    train, test = questions("train", intents), questions("test", intents)
    known = questions("train", others)

    program = program_for(intents)
    prompt = finetune.labeled(program, train).samples[0].messages
    tasks = [prompt[0].text] + [finetune.labeled(program_for(others), known).samples[0].messages[0].text] * bool(known)
    texts = [example["text"] for example in (*known, *train)]
    tokenizer = tokenizer_of(texts, (*MARKERS, *names, *tasks))
    model = make(len(tokenizer), chosen.seed)
    lm = Local(model, tokenizer, name=f"tiny-{kind.lower()}", max_tokens=8)
    weights = sum(weight.numel() for weight in model.parameters())
    length = len(lm.encode(Request(tail=prompt)))
    console.print(
        f"{len(train)} training and {len(test)} test questions of {len(intents)} intents, about {length} tokens"
    )
    console.print(f"a {kind} of {weights:,} weights")

    def trained(name: str, program: nn.Module, rows: Sequence[Example]) -> tuple[finetune.TuneResult, float]:
        begun = time.process_time()
        result = finetune.sft(
            program,
            with_gaps(rows, Random(chosen.seed)),
            lora=LORA if name == "LoRA" else None,
            steps=steps[name],
            lr=rates[name],
            batch_size=32,
            seed=chosen.seed,
            progress=None,
        )
        console.print(f"{name}: {result}")
        return result, time.process_time() - begun

    result, seconds = trained("the base", program_for(others).to(lm), known) if known else (None, 0.0)
    program.to(result.lm if result else lm)
    base = Row("the base", weights, seconds, answers(program, test))
    rows = [base]
    for name, count in (("LoRA", LORA["r"] * edges(model)), ("all weights", weights)):
        result, seconds = trained(name, program, train)
        rows.append(Row(name, count, seconds, answers(result.program, test)))
    words = bag_of_words(train, test)
    console.print(table([*rows, *([words] if words else [])], base))
    if words is None:
        console.print("The bag of words is left out: pip install scikit-learn")


if __name__ == "__main__":
    compare(arguments(__doc__), "Llama", llama, RATES, STEPS)
