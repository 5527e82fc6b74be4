"""Examples, scores, loaders, splits and readers: the data that a program is trained and measured on.

Each name loads on first use, so that importing the room costs nothing.
"""

from typing import TYPE_CHECKING

__all__ = [
    "DataLoader",
    "Example",
    "Score",
    "collate",
    "from_dicts",
    "gsm8k",
    "json_lines",
    "not_a_list",
    "not_a_table",
    "pocket",
    "read_csv",
    "read_jsonl",
    "split",
    "table_hint",
]

if TYPE_CHECKING:
    from promptgrad.data import pocket
    from promptgrad.data._example import Example
    from promptgrad.data._gsm8k import gsm8k
    from promptgrad.data._loader import DataLoader, collate
    from promptgrad.data._readers import from_dicts, json_lines, read_csv, read_jsonl
    from promptgrad.data._score import Score
    from promptgrad.data._split import split
    from promptgrad.data._table import not_a_list, not_a_table, table_hint
else:
    from promptgrad._late import late

    _LATE = {
        "DataLoader": "_loader",
        "Example": "_example",
        "Score": "_score",
        "collate": "_loader",
        "from_dicts": "_readers",
        "gsm8k": "_gsm8k",
        "json_lines": "_readers",
        "not_a_list": "_table",
        "not_a_table": "_table",
        "pocket": "pocket",
        "read_csv": "_readers",
        "read_jsonl": "_readers",
        "split": "_split",
        "table_hint": "_table",
    }

    # What a user of PyTorch, Hugging Face or pandas may type out of habit, and what to write here.
    _ELSEWHERE = {
        **dict.fromkeys(("random_split", "train_test_split"), "promptgrad.data.split(data, sizes, seed=...)"),
        **dict.fromkeys(
            ("Dataset", "TensorDataset", "IterableDataset"), "promptgrad.Example: a data set is a list of them"
        ),
        **dict.fromkeys(("from_pandas", "from_list", "from_dict"), "promptgrad.data.from_dicts(rows, inputs=[...])"),
        **dict.fromkeys(("load_dataset", "from_json"), "promptgrad.data.read_jsonl(path, inputs=[...])"),
        "default_collate": "promptgrad.data.collate",
    }

    __getattr__, __dir__ = late(__name__, _LATE, _ELSEWHERE)
