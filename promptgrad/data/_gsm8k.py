"""A small sample of GSM8K: grade-school maths word problems."""

import json
import re
from pathlib import Path

from promptgrad.data._example import Example
from promptgrad.errors import DataError

_SPLITS = ("train", "val", "test")
_FOLDER = Path(__file__).parent / "samples"


def gsm8k(split: str = "train", *, reasoning: bool = False) -> list[Example]:
    """100 real questions of GSM8K with their answers, from the package: no download.

    Fields: `question` (the input) and `answer`, the final number as text. Licence: MIT.
    Source: Cobbe et al. 2021, arXiv 2110.14168; train and val are from its train file, test from its test file.

    Args:
        split: "train", "val" or "test".
        reasoning: Add the worked solution as a label `reasoning`, without its calculator notes. A metric then needs
            the name of the field, as in `numeric_match(field="answer")`.

    Raises:
        DataError: There is no such split.
    """
    if split not in _SPLITS:
        raise DataError(f"gsm8k has the splits {', '.join(map(repr, _SPLITS))}, not {split!r}")
    lines = (_FOLDER / f"gsm8k_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    examples = []
    for row in map(json.loads, lines):
        fields = {"question": row["question"]}
        if reasoning:
            fields["reasoning"] = re.sub(r"<<.*?>>", "", row["rationale"])
        examples.append(Example(fields, answer=row["answer"]).with_inputs("question"))
    return examples
