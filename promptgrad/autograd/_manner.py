"""`Manner`: how a backward pass is made."""

from dataclasses import dataclass

from promptgrad._numbers import check_count, optional_count

ENGINES = ("auto", "local", "joint")


@dataclass(frozen=True)
class Manner:
    """How a backward pass is made. See `Loss.backward`."""

    retain_graph: bool = False
    weights: bool | None = None
    truncate: int | None = None
    engine: str = "auto"
    repeat: int = 1
    concurrency: int | None = None
    group: int | None = None

    def __post_init__(self) -> None:
        optional_count("concurrency", self.concurrency, what="a number of critic calls in flight")
        check_count("repeat", self.repeat, what="a number of answers")
        if self.engine == "joint" and self.repeat > 1:
            raise ValueError("repeat asks about one call several times: write engine='local', or leave engine out")
        if self.engine not in ENGINES:
            raise ValueError(f"engine is one of {', '.join(map(repr, ENGINES))}, not {self.engine!r}")
        optional_count("group", self.group, what="a number of failed forwards")
        optional_count("truncate", self.truncate, what="a number of calls")
