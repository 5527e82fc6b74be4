"""What is found, how fast, and in how much memory: `promptgrad.retrieve` beside bm25s and rank-bm25.

Rows of three parts. "quality": recall@5, nDCG@10 and MRR on two samples with judgements (`data/`), everyone with the
settings that it has by itself. "size": passages of 50 words, drawn by their frequency in the two samples; a process a
contestant, which indexes them, searches, adds one passage and searches, and saves: CPU and wall seconds, and peak
memory, where the passages alone stand beside it. "dense": exact search, in all and in half of the passages, beside the
graph of neighbours, in clusters of vectors, with the memory of the process.

`--only 1000000` runs the rows of one size, `--only quality` those of one part, `--only "dense 1000000"` both.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _retrieval_quality import SETS, quality, rows, shown
from _side_by_side import header, options

SIZES = (10_000, 100_000, 1_000_000)
DENSE = (10_000, 100_000, 1_000_000)
WORDS, QUERIES, SIZE = 50, 50, 256
LARGEST_OF_RANK = 20_000
"""rank-bm25 takes seconds for a query beyond."""


# ---- size


def drawn(number: int) -> tuple[list[str], list[str]]:
    """Passages of real words by their frequency, and queries of six words of a passage, by a seed."""
    import numpy as np

    counts = Counter(word for name in SETS for row in rows(name, "corpus") for word in shown(row).split())
    words = np.array(sorted(counts))
    shares = np.array([counts[word] for word in words.tolist()], dtype=float)
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for begin in range(0, number, 10_000):
        chosen = rng.choice(len(words), size=(min(10_000, number - begin), WORDS), p=shares / shares.sum())
        texts += [" ".join(row) for row in words[chosen].tolist()]
    picked = rng.choice(number, size=QUERIES)
    return texts, [" ".join(rng.choice(texts[place].split(), size=6).tolist()) for place in picked]


def memory(what: str) -> int:
    """Memory of this process in MB: "VmRSS" now, "VmHWM" at most, since `forget_peak`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(what)) // 1024


def forget_peak() -> None:
    """Count the most memory from now on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Clock:
    """CPU and wall seconds since the last reading."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        """The seconds, and begin anew."""
        cpu, wall = time.process_time(), time.perf_counter()
        spent = cpu - self.cpu, wall - self.wall
        self.cpu, self.wall = cpu, wall
        return spent


def timed(search: Callable[[str], Any], queries: list[str]) -> float:
    """Median CPU milliseconds of a query."""
    spent = []
    for query in queries:
        began = time.process_time()
        search(query)
        spent.append(1e3 * (time.process_time() - began))
    return round(statistics.median(spent), 3)


def size_of_ours(texts: list[str], queries: list[str]) -> Iterator[tuple[str, Any]]:
    """Ours."""
    from promptgrad import retrieve

    retrieve.BM25(["everything is imported"]).search("everything")
    clock = Clock()
    index = retrieve.BM25(texts)
    index.refresh()
    yield "index_cpu_s", clock.read()
    yield "peak_mb", memory("VmHWM")
    yield "search_cpu_ms", timed(lambda query: index.search(query, 5), queries)
    clock.read()
    index.add(["a passage that was added later"])
    index.search("added later")
    yield "add_one_and_search_cpu_s", clock.read()
    with tempfile.TemporaryDirectory() as folder:
        clock.read()
        index.save(folder)
        yield "save_cpu_s", clock.read()
        yield "saved_mb", sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) // 2**20
        program = (
            "import sys, time; from pathlib import Path; from promptgrad import retrieve\n"
            "began = time.process_time()\n"
            "index = retrieve.load(sys.argv[1], verify=False); index.search(sys.argv[2])\n"
            "print(time.process_time() - began)\n"
            "print(*[line for line in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in line])"
        )
        command = [sys.executable, "-c", program, folder, queries[0]]
        root = str(Path(__file__).resolve().parents[1])
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.split()
        yield "load_and_search_cpu_s", (float(said[0]), None)
        yield "loaded_peak_mb", int(said[2]) // 1024


def size_of_bm25s(texts: list[str], queries: list[str]) -> Iterator[tuple[str, Any]]:
    """bm25s; it has no way to add a passage but to index all anew."""
    import bm25s

    def indexed() -> Any:
        engine = bm25s.BM25()
        engine.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
        return engine

    clock = Clock()
    engine = indexed()
    yield "index_cpu_s", clock.read()
    yield "peak_mb", memory("VmHWM")

    def search(query: str) -> Any:
        return engine.retrieve(bm25s.tokenize([query], show_progress=False), k=5, show_progress=False)

    yield "search_cpu_ms", timed(search, queries)
    with tempfile.TemporaryDirectory() as folder:
        clock.read()
        engine.save(folder, corpus=texts, show_progress=False)
        yield "save_cpu_s", clock.read()
        yield "saved_mb", sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) // 2**20
    clock.read()
    texts.append("a passage that was added later")
    engine = indexed()
    search("added later")
    yield "add_one_and_search_cpu_s", clock.read()


def size_of_rank(texts: list[str], queries: list[str]) -> Iterator[tuple[str, Any]]:
    """rank-bm25."""
    from rank_bm25 import BM25Okapi

    clock = Clock()
    engine = BM25Okapi([text.split() for text in texts])
    yield "index_cpu_s", clock.read()
    yield "peak_mb", memory("VmHWM")
    yield "search_cpu_ms", timed(lambda query: engine.get_top_n(query.split(), texts, n=5), queries)


SIZED = {"promptgrad BM25": size_of_ours, "bm25s": size_of_bm25s, "rank-bm25": size_of_rank}


def child(who: str, number: int) -> None:
    """Be a contestant: print a row."""
    row: dict[str, Any] = {"part": "size", "passages": number, "who": who}
    try:
        if who == "rank-bm25" and number > LARGEST_OF_RANK:
            raise ImportError(f"it is measured up to {LARGEST_OF_RANK:,} passages")
        texts, queries = drawn(number)
        gc.collect()
        row["passages_alone_mb"] = memory("VmRSS")
        forget_peak()
        for name, value in SIZED[who](texts, queries):
            if isinstance(value, tuple):
                row[name] = round(value[0], 4)
                if value[1] is not None:
                    row[name.replace("_cpu_s", "_wall_s")] = round(value[1], 3)
            else:
                row[name] = value
    except ImportError as error:
        row["skipped"] = str(error)
    print(json.dumps(row))


def sized(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Each contestant at each size, in a process of its own."""
    for number in sizes:
        found = {}
        for who in SIZED:
            command = [sys.executable, __file__, "--child", who, "--params", str(number)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                yield {"part": "size", "passages": number, "who": who, "skipped": done.stderr[-300:]}
                continue
            found[who] = json.loads(done.stdout.splitlines()[-1])
            yield found[who]
        ours, peer = found.get("promptgrad BM25"), found.get("bm25s")
        if ours and peer and "skipped" not in peer:
            for name, most in (("index_cpu_s", 1.5), ("search_cpu_ms", 1.5), ("add_one_and_search_cpu_s", 0.2)):
                share = round(ours[name] / peer[name], 3)
                yield {
                    "part": "size",
                    "passages": number,
                    "who": f"promptgrad BM25 / bm25s, {name}",
                    "ratio": share,
                    "target": f"<= {most}",
                    "meets": share <= most,
                }


# ---- dense


class Vectors:
    """Texts that are numbers, and their vectors in clusters, made a block at a time: the whole table is nowhere.

    Args:
        number: How many there are.
    """

    BLOCK = 4096

    def __init__(self, number: int) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self.centres = rng.standard_normal((max(10, number // 100), SIZE), dtype=np.float32)
        self.known: dict[int, Any] = {}

    def block(self, place: int) -> Any:
        """The vectors of a block; the last one is kept."""
        import numpy as np

        if place not in self.known:
            rng = np.random.default_rng((1, place))
            table = self.centres[rng.integers(0, len(self.centres), self.BLOCK)]
            table += 0.7 * rng.standard_normal((self.BLOCK, SIZE), dtype=np.float32)
            self.known = {place: table}
        return self.known[place]

    def __call__(self, texts: list[str]) -> Any:
        import numpy as np

        places = [int(text) for text in texts]
        return np.stack([self.block(place // self.BLOCK)[place % self.BLOCK] for place in places])


def dense_rows(number: int) -> Iterator[dict[str, Any]]:
    """Exact search beside the graph of neighbours, in one process, which holds one of them at a time."""
    import numpy as np

    from promptgrad import retrieve

    embed = Vectors(number)
    rng = np.random.default_rng(0)
    texts = [{"text": str(place), "odd": place % 2} for place in range(number)]
    half = {"odd": 1}
    queries = [str(place) for place in rng.integers(0, number, QUERIES)]
    asked = dict(zip(queries, embed(queries), strict=True))
    found: dict[str, list[set[str]]] = {}
    for who, bound in (("promptgrad Dense, exact", None), ("promptgrad Dense, graph", 1)):
        gc.collect()
        before = memory("VmRSS")
        forget_peak()
        index = retrieve.Dense(texts, embed, query_embedder=lambda of: np.stack([asked[text] for text in of]))
        index.approximate_from = None  # the vectors are made, and are none of the time
        index.refresh()
        index.approximate_from = bound
        clock = Clock()
        index.refresh()
        cpu, wall = clock.read()
        row = {"part": "dense", "passages": number, "size": SIZE, "who": who, "build_cpu_s": round(cpu, 3)}
        row |= {"build_wall_s": round(wall, 3), "rss_before_mb": before, "rss_mb": memory("VmRSS")}
        found[who] = [{hit.id for hit in index.search(query, 10)} for query in queries]
        row |= {"search_cpu_ms": timed(lambda q, i=index: i.search(q, 10), queries)}
        row |= {"peak_mb": memory("VmHWM")}
        if bound is None:
            forget_peak()
            index.search(queries[0], 10, filter=half)  # which is then known
            row |= {"half_search_cpu_ms": timed(lambda q, i=index: i.search(q, 10, filter=half), queries[:10])}
            row |= {"half_peak_mb": memory("VmHWM")}
        if bound is not None:
            pairs = zip(*found.values(), strict=True)
            share = statistics.fmean(len(one & other) / 10 for one, other in pairs)
            row |= {"recall_of_exact": round(share, 4), "target": ">= 0.95", "meets": share >= 0.95}
        yield row
        del index


def dense(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Exact search beside the graph of neighbours, each size in a process of its own."""
    for number in sizes:
        command = [sys.executable, __file__, "--child", "dense", "--params", str(number)]
        alone = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # none waits
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **alone})
        if done.returncode:
            yield {"part": "dense", "passages": number, "who": "promptgrad Dense", "skipped": done.stderr[-300:]}
            continue
        yield from map(json.loads, done.stdout.splitlines())


def main() -> None:
    """Print the rows of all parts."""
    chosen = options(__doc__ or "", blocks=1)
    if chosen.child == "dense":
        for row in dense_rows(int(chosen.params)):
            print(json.dumps(row), flush=True)
        return
    if chosen.child is not None:
        child(chosen.child, int(chosen.params))
        return
    header("retrieve")
    only = chosen.only
    sizes = (500,) if chosen.quick else tuple(n for n in SIZES if not only.isdigit() or int(only) == n)
    vectors = (500,) if chosen.quick else tuple(n for n in DENSE if only in ("", "dense", f"dense {n}"))
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "quality": lambda: quality(chosen.quick),
        "size": lambda: sized(sizes),
        "dense": lambda: dense(vectors),
    }
    for part, run in parts.items():
        if not only or only.split()[0] == part or (only.isdigit() and part == "size"):
            for row in run():
                if all(not isinstance(value, float) or math.isfinite(value) for value in row.values()):
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
