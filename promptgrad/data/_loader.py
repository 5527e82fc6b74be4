"""`DataLoader`: batches of examples, in a new order each epoch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from promptgrad._habits import refuses
from promptgrad._seed import seed_or_default
from promptgrad.data._example import Example
from promptgrad.data._order import shuffled
from promptgrad.data._table import not_a_list
from promptgrad.errors import DataError


class DataLoader:
    """Iterates over a data set in batches, as `torch.utils.data.DataLoader` does.

    A batch is a list of examples, never columns. Every pass is an epoch; with `shuffle` each has an order of its own,
    which depends only on the seed and the epoch's number. A `state_dict` taken between two batches holds the place: a
    loader that loads it continues with the next batch.

    Args:
        dataset: Examples, or dicts, which become examples; anything with a length and indices, or any iterable.
        batch_size: Rows of a batch.
        shuffle: Whether each epoch has its own order.
        seed: Seed of the orders; by default that of `promptgrad.manual_seed`.
        drop_last: Leave out a last batch that is smaller than the others.
        sampler: Indices in the order to use, instead of `shuffle`, such as a torch sampler. If it has `set_epoch`,
            that is called with the number of each epoch.
        collate_fn: Makes a batch of a list of rows; by default `collate`, which gives a list of examples, as `map`,
            `evaluate` and `Trainer.fit` take it.

    Raises:
        DataError: The data set is a table of columns, or empty, or smaller than one batch where `drop_last` is set.
        ValueError: The batch size is below one, or both `shuffle` and `sampler` are given.

    >>> loader = DataLoader([Example(q=n) for n in range(5)], batch_size=2)
    >>> [[example.q for example in batch] for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    @refuses(
        {
            **dict.fromkeys(
                (
                    "num_workers",
                    "pin_memory",
                    "prefetch_factor",
                    "persistent_workers",
                    "pin_memory_device",
                    "timeout",
                    "worker_init_fn",
                    "multiprocessing_context",
                    "in_order",
                ),
                "nothing: rows are in memory, and calls run side by side by concurrency=... of map and Trainer",
            ),
            "generator": "seed=...",
            "batch_sampler": "sampler=... and batch_size=...",
        }
    )
    def __init__(
        self,
        dataset: Iterable[Any],
        batch_size: int = 1,
        shuffle: bool = False,  # noqa: FBT001, FBT002 - torch's signature
        *,
        seed: int | None = None,
        drop_last: bool = False,
        sampler: Iterable[int] | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        if fault := not_a_list("a DataLoader takes", dataset, rows=False):
            raise DataError(fault)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        if shuffle and sampler is not None:
            raise ValueError("give either shuffle=True or a sampler: a sampler decides the order itself")
        indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, Mapping)
        self.dataset: Sequence[Any] = dataset if indexed else list(dataset)  # type: ignore[assignment]
        if len(self.dataset) == 0:
            raise DataError("the data set is empty: a loader needs at least one example")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed_or_default(seed)
        self.drop_last = drop_last
        self.sampler = sampler
        self.collate_fn = collate if collate_fn is None else collate_fn
        self.epoch = 0
        self._given = 0  # batches of this epoch that were yielded
        self._begun = False  # whether a pass of this epoch has begun, so that the next pass is another epoch
        self._resume = 0
        if sampler is None and len(self) == 0:
            raise DataError(
                f"{len(self.dataset)} rows make no batch of {batch_size}, and drop_last=True leaves them out"
            )

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the epoch of this number, from its beginning."""
        self.epoch = epoch
        self._given = self._resume = 0
        self._begun = False

    def state_dict(self) -> dict[str, int]:
        """The place of the loader: its seed, its epoch, and the number of batches that the epoch has yielded."""
        return {"seed": self.seed, "epoch": self.epoch, "batch": self._given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue at the place of another loader over the same data.

        Raises:
            DataError: The state is not that of a loader.
        """
        if set(state) != {"seed", "epoch", "batch"}:
            raise DataError(f"the state of a DataLoader has seed, epoch and batch, not {', '.join(map(str, state))}")
        self.seed = int(state["seed"])
        self.set_epoch(int(state["epoch"]))
        self._given = self._resume = int(state["batch"])

    def __iter__(self) -> Iterator[list[Example]]:
        if self._begun:
            self.set_epoch(self.epoch + 1)
        batches, start = self._batches(self.epoch), self._resume
        if start and start >= len(batches):  # the state was taken after the last batch
            self.set_epoch(self.epoch + 1)
            batches, start = self._batches(self.epoch), 0
        self._begun, self._resume = True, 0
        return self._pass(self.epoch, batches, start)

    def _pass(self, epoch: int, batches: list[list[int]], start: int) -> Iterator[list[Example]]:
        for number in range(start, len(batches)):
            if self.epoch == epoch:
                self._given = number + 1
            yield self.collate_fn([self.dataset[index] for index in batches[number]])

    def _batches(self, epoch: int) -> list[list[int]]:
        if self.sampler is not None:
            set_epoch = getattr(self.sampler, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)
            order = [int(index) for index in self.sampler]
        elif self.shuffle:
            order = shuffled(range(len(self.dataset)), self.seed, "epoch", epoch)
        else:
            order = list(range(len(self.dataset)))
        cut = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return cut[:-1] if self.drop_last and cut and len(cut[-1]) < self.batch_size else cut

    def __len__(self) -> int:
        rows = len(self.sampler if isinstance(self.sampler, Sized) else self.dataset)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __repr__(self) -> str:
        order = "sampler" if self.sampler is not None else f"shuffled, seed {self.seed}" if self.shuffle else "in order"
        return f"DataLoader({len(self.dataset)} rows, batch_size={self.batch_size}, {order})"


def collate(batch: Iterable[Any]) -> list[Example]:
    """Make a batch: a list of examples, with dicts turned into examples.

    Give it to torch's loader, which would otherwise tear the rows into columns:
    `torch.utils.data.DataLoader(examples, batch_size=8, collate_fn=promptgrad.data.collate)`.
    """
    return [Example(row) if isinstance(row, Mapping) else row for row in batch]
