"""`Manner`: how a backward pass is made."""

from dataclasses import dataclass

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
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(
                f"concurrency is a number of critic calls in flight and at least 1, not {self.concurrency}"
            )
        if self.repeat < 1:
            raise ValueError(f"repeat is a number of answers and at least 1, not {self.repeat}")
        if self.engine == "joint" and self.repeat > 1:
            raise ValueError("repeat asks about one call several times: write engine='local', or leave engine out")
        if self.engine not in ENGINES:
            raise ValueError(f"engine is one of {', '.join(map(repr, ENGINES))}, not {self.engine!r}")
        if self.group is not None and self.group < 1:
            raise ValueError(f"group is a number of failed forwards and at least 1, not {self.group}")
        if self.truncate is not None and self.truncate < 1:
            raise ValueError(f"truncate is a number of calls and at least 1, not {self.truncate}")
