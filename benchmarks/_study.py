"""What studies share: jobs run in processes and leave JSON lines in a file; those that have lines are not done again.

A killed study goes on where it stopped, and its processes end with it (`_lifeline.py`). Each line holds digests of the
sources that made it, of the worlds and, where promptgrad ran, of promptgrad; a study does not go on in a file whose
lines were made by others, as a table of both would compare what cannot be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from _lifeline import end_with

Job = TypeVar("Job", bound=Hashable)
Line = dict[str, Any]


def study(
    do: Callable[[Job], list[Line]],
    jobs: Sequence[Job],
    out: Path,
    processes: int,
    *,
    job_key: Callable[[Job], Hashable],
    line_key: Callable[[Line], Hashable],
    ours: Callable[[Line], bool],
    mixed: bool = False,
    noun: str = "runs",
    done: Callable[[Line], None] = lambda line: None,
) -> int:
    """Do the jobs that have no line yet; gives how many failed.

    Args:
        do: Does one job and gives its lines; a function of a module, as processes have to find it.
        jobs: The jobs.
        out: The file of the lines, which are appended.
        processes: Number of processes.
        job_key: What tells one job from others.
        line_key: The same of a line.
        ours: Whether promptgrad made a line, not a peer.
        mixed: Whether lines in the file may be of other sources.
        noun: What jobs are called.
        done: Called with each line that was made.

    Raises:
        SystemExit: Other sources than the present ones made lines of the file.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = read(out)
    now = {kind: sources(ours=kind) for kind in (True, False)}
    others = [line for line in lines if any(line.get(name) != value for name, value in now[ours(line)].items())]
    if others and not mixed:
        raise SystemExit(
            f"{out}: {len(others)} of {len(lines)} lines, such as that of {line_key(others[0])}, were not made by the "
            f"present sources ({', '.join(f'{name} {value}' for name, value in now[True].items())}). Give another "
            "--out, or --mixed to go on in this one nevertheless."
        )
    known = {line_key(line) for line in lines}
    left = [job for job in jobs if job_key(job) not in known]
    print(f"{len(jobs)} {noun}, {len(jobs) - len(left)} of them done before", file=sys.stderr)
    failed = 0
    context = multiprocessing.get_context("spawn")
    watched, line = context.Pipe(duplex=False)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        out.open("a") as file,
        watched,
        ProcessPoolExecutor(processes, mp_context=context, initializer=_worker, initargs=(folder, watched)) as pool,
    ):
        try:
            if out.stat().st_size and not out.read_bytes().endswith(b"\n"):
                file.write("\n")  # the last line was cut off
            tasks = {pool.submit(do, job): job for job in left}
            for task in as_completed(tasks):
                error = task.exception()
                if error is not None:
                    failed += 1
                    print(f"{tasks[task]}: {type(error).__name__}: {error}", file=sys.stderr)
                    continue
                made = [{**made, **now[ours(made)]} for made in task.result()]
                file.write("".join(json.dumps(row) + "\n" for row in made))
                file.flush()
                for row in made:
                    done(row)
        except BaseException:
            line.close()  # or the pool would wait for all that is left to be done
            raise
    line.close()
    return failed


def _worker(folder: str, watched: Connection) -> None:
    """Prepare a process: TextGrad writes logs where it is imported, and torch would take every core."""
    end_with(watched, folder)
    tempfile.tempdir = folder
    os.chdir(folder)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def read(out: Path) -> list[Line]:
    """The lines of a results file; a last line that was cut off is left out."""
    if not out.exists():
        return []
    lines = []
    for text in out.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def numbers(text: str) -> list[int]:
    """`0:20` or `1000,1004`."""
    if ":" in text:
        first, last = text.split(":")
        return list(range(int(first), int(last)))
    return [int(part) for part in text.split(",")]


def options(about: argparse.ArgumentParser, out: Path | None, report: str) -> None:
    """Add the options that all studies have.

    Args:
        about: The parser.
        out: The results file where none is given; None if one must be given.
        report: Name of the option that only reports on the file, such as "table".
    """
    about.add_argument("--jobs", type=int, default=2, help="processes")
    about.add_argument("--out", type=Path, default=out, required=out is None, help="file of the results")
    about.add_argument("--mixed", action="store_true", help="go on in a file with lines of other sources")
    about.add_argument(f"--{report}", action="store_true", help=f"print the {report} of the file, and run nothing")


# -- sources ----------------------------------------------------------------------------------------------------------


def sources(*, ours: bool) -> dict[str, str]:
    """What makes a line: the digest of the worlds, and where promptgrad runs, its version and digest."""
    import promptgrad as pg

    found = {"worlds": _digest(Path(__file__).parent / "worlds")}
    return {**found, "promptgrad": f"{pg.__version__} {_digest(Path(pg.__file__).parent)}"} if ours else found


def _digest(folder: Path) -> str:
    """A digest of the source files in a folder, by name and content."""
    state = hashlib.blake2b(digest_size=6)
    for path in sorted(folder.rglob("*.py")):
        state.update(f"{path.relative_to(folder).as_posix()}\0{path.read_text(encoding='utf-8')}\0".encode())
    return state.hexdigest()
