"""How many small wrong changes to the package the tests notice.

    python benchmarks/mutants.py map [TESTS ...]           once: which tests execute which line
    python benchmarks/mutants.py run [--seed 1000] [--count 400] [--part 0/2]
    python benchmarks/mutants.py again [--seed 1000]       the survivors once more, with the tests as they are now
    python benchmarks/mutants.py report [--seed 1000]      one JSON line

Each takes `--rooms nn func ... --out FOLDER` for rooms that `mutants.toml` does not name.

Needs Python 3.11 and, beside the development environment, `pip install cosmic-ray coverage`. cosmic-ray's operators
make the mutants of the rooms that `mutants.toml` names. They are put into an order drawn from the seed, with the same
chance for each. Changes that do not compile or that only change annotations and blocks under `TYPE_CHECKING` are left
out, and the first `--count` of the others are tried.

A mutant is tried in a copy of the tree, in a forked process that has loaded the libraries already, with the tests that
execute its statement: those of its own room first, then the fastest first, until one fails. It is *noticed* when a
test fails, when nothing can be imported any more, or when the tests take far longer than they should (*late*). It has
*survived* when all of them pass, and also when no test executes it (*unreached*). Tests that start processes are not
asked, so the share is what the rest notices. For a statement outside functions the tests are those of the functions
that use its name, or else of the file.

What was done is in `--out` (build/mutants), a line a mutant in `rows-*.jsonl`; what has a line is not done again.
`again` copies the tree anew and asks first the tests that are new since the map; a mutant whose lines are not in the
source any more is *gone*. Nothing else is written.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import tomllib

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "benchmarks" / "mutants.toml").read_text())
ROOMS = CONFIG["cosmic-ray"]["module-path"]
MEMORY = 6 << 30  # a mutant may allocate without end
BROKEN = 70  # exit status where not the mutant but this script is at fault
OPTIONS = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
OPTIONS += ["-W", "ignore:Module already imported"]  # by `load_libraries`
FIRST = 16  # tests that are asked before any other is collected: most mutants are noticed by them
LIBRARIES = ("hypothesis", "pydantic", "aiohttp", "optuna", "numpy", "torch", "transformers", "peft", "safetensors")


class Mutant(NamedTuple):
    """One change: an operator of cosmic-ray, applied at one of the places that it finds in a file."""

    path: str
    operator: str
    occurrence: int
    line: int
    column: int

    @property
    def key(self) -> str:
        return f"{self.path}:{self.operator}:{self.occurrence}"


# --- which mutants -------------------------------------------------------------------------------------------------


def every_mutant(tree: Path) -> Iterator[Mutant]:
    """All mutants of the rooms, in the order of their files."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    kinds = {name: get_operator(name) for name in sorted(operator_names())}
    makers = {name: kind() for name, kind in kinds.items() if not kind.arguments() and "NoOp" not in name}
    for room in ROOMS:
        for file in sorted((tree / room).glob("*.py")):
            nodes = list(ast_nodes(get_ast(file.read_text())))
            for name, maker in makers.items():
                places = (start for node in nodes for start, _ in maker.mutation_positions(node))
                for occurrence, (line, column) in enumerate(places):
                    yield Mutant(str(file.relative_to(tree)), name, occurrence, line, column)


def mutated(source: str, mutant: Mutant) -> str | None:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed: str | None = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    return changed


class _Silent(ast.NodeTransformer):
    """Takes out what is never evaluated: annotations, and blocks for the type checker."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        alias = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
        node.annotation = ast.Constant(None)
        if alias:
            node.value = None
        return node

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        node.returns = None
        self.generic_visit(node)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(part, ast.Name) and part.id == "TYPE_CHECKING" for part in ast.walk(node.test)):
            node.test, node.body = ast.Name("TYPE_CHECKING"), [ast.Pass()]
        return node


@lru_cache(maxsize=512)
def meaning(source: str) -> str:
    """The program without what is never evaluated."""
    return ast.dump(_Silent().visit(ast.parse(source)))


def counts(source: str, changed: str | None) -> bool:
    """Whether a change makes another program that compiles."""
    if changed is None:
        return False
    try:
        return meaning(changed) != meaning(source)
    except SyntaxError:
        return False


def sample(tree: Path, out: Path, seed: int) -> Iterator[Mutant]:
    """The mutants that count, in the order of the seed."""
    listing = out / "every.json"
    if not listing.exists():
        listing.write_text(json.dumps([list(mutant) for mutant in every_mutant(tree)]))
    mutants = [Mutant(*fields) for fields in json.loads(listing.read_text())]
    random.Random(seed).shuffle(mutants)
    for mutant in mutants:
        source = (tree / mutant.path).read_text()
        if counts(source, mutated(source, mutant)):
            yield mutant


# --- which tests ---------------------------------------------------------------------------------------------------


def statement(source: str, line: int) -> tuple[set[int], str | None]:
    """The lines whose execution executes what stands at a line, and the name it gives where that is not in a function.

    A default or a decorator runs at import; whoever calls the function depends on it.
    """
    found: tuple[set[int], str | None] = (set(), None)

    def walk(body: list[ast.stmt], holder: str | None, *, inside: bool) -> None:
        nonlocal found
        for node in body:
            first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
            if not first <= line <= (node.end_lineno or first):
                continue
            blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            blocks += [handler.body for handler in getattr(node, "handlers", [])]
            blocks += [case.body for case in getattr(node, "cases", [])]
            inner = [part for block in blocks for part in block]
            function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            head_end = inner[0].lineno - 1 if inner else node.end_lineno or first
            if function and line <= head_end and not inside:
                found = {number for part in inner for number in range(part.lineno, (part.end_lineno or 0) + 1)}, None
            elif inside:
                found = set(range(first, max(head_end, first) + 1)), None
            else:
                target = getattr(node, "targets", [getattr(node, "target", None)])[0]
                found = set(), getattr(target, "id", holder)
            kind = node.name if isinstance(node, ast.ClassDef) else holder
            walk(inner, kind, inside=inside or function)

    walk(ast.parse(source).body, None, inside=False)
    return found


class Map:
    """Which tests execute which line."""

    def __init__(self, out: Path) -> None:
        from coverage import CoverageData

        self.tree = out / "tree"
        self.data = CoverageData(basename=str(out / "map.coverage"))
        self.data.read()
        self.seconds: dict[str, float] = json.loads((out / "tests.json").read_text())
        self.by_line = lru_cache(maxsize=16)(self._by_line)

    def _by_line(self, path: str) -> dict[int, set[str]]:
        found = self.data.contexts_by_lineno(str(self.tree / path))
        return {line: {name for name in names if name in self.seconds} for line, names in found.items()}

    def tests(self, mutant: Mutant, limit: int, seconds: float) -> list[str]:
        """The tests to ask about a mutant, in their order."""
        source = (self.tree / mutant.path).read_text()
        lines, name = statement(source, mutant.line)
        by_line = self.by_line(mutant.path)
        chosen = {test for line in lines for test in by_line.get(line, ())}
        if not lines and name:
            used = re.compile(rf"\b{re.escape(name)}\b")
            for room in ROOMS:
                for file in sorted((self.tree / room).glob("*.py")):
                    text = file.read_text()
                    if used.search(text):
                        found = self.by_line(str(file.relative_to(self.tree)))
                        hits = {n for n, words in enumerate(text.splitlines(), 1) if used.search(words)}
                        chosen |= {test for line in hits for test in found.get(line, ())}
        if not lines and not chosen:
            chosen = {test for names in by_line.values() for test in names}
        room = mutant.path.split("/")[1]
        ordered = sorted(chosen, key=lambda test: (not test.startswith(f"tests/{room}/"), self.seconds[test], test))
        taken, spent = [], 0.0
        for test in ordered[:limit]:
            spent += self.seconds[test]
            if spent > seconds and taken:
                break
            taken.append(test)
        return taken


# --- running them --------------------------------------------------------------------------------------------------


def copy_tree(tree: Path) -> None:
    """Lay what git would commit, and what is new and not ignored, into a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    shutil.rmtree(tree, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


class _Chosen:
    """A plugin: only these tests, or those of these files that are not known, in this order; notes which failed."""

    def __init__(self, tests: list[str] | None, known: Container[str] = (), coverage: Any = None) -> None:
        self.place = None if tests is None else {test: number for number, test in enumerate(tests)}
        self.known, self.coverage = known, coverage
        self.seconds: Counter[str] = Counter()
        self.failed: list[str] = []
        self.skipped: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.place is not None:
            named = [(self._place(item.nodeid), item) for item in items]
            items[:] = [item for place, item in sorted(named, key=lambda pair: pair[0] or 0) if place is not None]

    def _place(self, nodeid: str) -> int | None:
        file = None if nodeid in self.known else nodeid.split("::")[0]
        return self.place.get(nodeid, self.place.get(file))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.coverage is not None:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.add(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def enter(tree: Path) -> None:
    """Work in the copy: its package is the one that is imported, here and in processes that tests start."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(tree.parent / "hypothesis")


def make_map(out: Path, paths: list[str]) -> dict[str, Any]:
    """Run these tests once, and add to what is known which test executes which line."""
    import coverage
    import pytest

    began = time.monotonic()
    tree = out / "tree"
    if not tree.exists():
        copy_tree(tree)
    enter(tree)
    watch = coverage.Coverage(data_file=str(out / "map.coverage"), source=[str(tree / "promptgrad")], config_file=False)
    watch.load()
    watch.start()
    chosen = _Chosen(None, coverage=watch)
    ignored = [f"--ignore={path}" for path in CONFIG["mutants"]["ignore"]]
    with (out / "map.log").open("w") as log, redirect_stdout(log):
        pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *ignored, *paths], plugins=[chosen])
    watch.stop()
    watch.save()
    passed = {test: t for test, t in chosen.seconds.items() if test not in {*chosen.failed, *chosen.skipped}}
    kept = out / "tests.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    kept.write_text(json.dumps({**known, **passed}))
    return {
        "mapped": len(passed),
        "known": len(known | passed),
        "failed": chosen.failed,
        "seconds": round(time.monotonic() - began),
    }


def forked(tree: Path, tests: list[str], seconds: Mapping[str, float], log: Path) -> tuple[str, str | None]:
    """Run tests, or the new ones of files, in a fork, until one fails: what came of it, and which failed."""
    result = log.with_suffix(".result")
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            with log.open("w") as file, open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.dont_write_bytecode = True
            enter(tree)
            import pytest

            chosen = _Chosen(tests, seconds)
            files = list(dict.fromkeys(test.split("::")[0] for test in tests))
            code = int(pytest.main([*OPTIONS, *files], plugins=[chosen]))
            result.write_text(json.dumps(chosen.failed[:1]))
        except BaseException as error:  # noqa: BLE001 a fork must never go on as its parent
            log.open("a").write(f"{error!r}\n")
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20 + 4 * sum(seconds.get(test, 5.0) for test in tests)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests had started
    if not pid:
        os.waitpid(child, 0)
        return "late", None
    failed = json.loads(result.read_text()) if result.exists() else []
    code = os.waitstatus_to_exitcode(status)
    if code == BROKEN:
        raise RuntimeError(log.read_text())
    return "survived" if code in (0, 5) else "noticed", failed[0] if failed else f"exit {code}"


def attempt(
    tree: Path, mutant: Mutant, changed: str, tests: list[str], seconds: Mapping[str, float], log: Path
) -> dict[str, Any]:
    """Try one mutant, given the changed file: its row."""
    file = tree / mutant.path
    source, stat = file.read_text(), file.stat()
    lines = difflib.unified_diff(source.splitlines(keepends=True), changed.splitlines(keepends=True), n=2)
    row = {**mutant._asdict(), "key": mutant.key, "tests": len(tests), "diff": "".join(list(lines)[2:])}
    if not tests:
        return {**row, "outcome": "unreached", "by": None, "seconds": 0}
    began, outcome, by = time.monotonic(), "survived", None
    try:
        file.write_text(changed)
        os.utime(file, (stat.st_atime, stat.st_mtime + 10))  # never taken for the bytecode of the original
        for part in filter(None, (tests[:FIRST], tests[FIRST:])):
            outcome, by = forked(tree, part, seconds, log)
            if outcome != "survived":
                break
    finally:
        file.write_text(source)
        os.utime(file, (stat.st_atime, stat.st_mtime))
    return {**row, "outcome": outcome, "by": by, "seconds": round(time.monotonic() - began, 1)}


def load_libraries() -> None:
    """What each fork would load again."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            try:
                __import__(name)
            except ImportError:
                continue


def rows_of(out: Path, pattern: str) -> list[dict[str, Any]]:
    """The lines of these files; of a mutant that was tried again, the last."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(out.glob(pattern)):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found[row["key"]] = row
    return list(found.values())


def run(out: Path, seed: int, count: int, part: str) -> dict[str, Any]:
    """Try the first mutants of the order; a part of several takes each n-th."""
    which, parts = map(int, part.split("/"))
    known = Map(out)
    kept = out / f"drawn-{seed}-{count}.json"
    if not kept.exists():
        kept.write_text(json.dumps([list(mutant) for mutant in islice(sample(out / "tree", out, seed), count)]))
    drawn = [Mutant(*fields) for fields in json.loads(kept.read_text())]
    done = {row["key"] for row in rows_of(out, f"rows-{seed}-[0-9]*.jsonl")}
    tree = out / f"tree-{which}"
    shutil.copytree(out / "tree", tree, dirs_exist_ok=True)
    load_libraries()
    bounds = CONFIG["mutants"]
    with (out / f"rows-{seed}-{which}.jsonl").open("a") as file:
        for mutant in drawn[which::parts]:
            if mutant.key in done:
                continue
            changed = mutated((tree / mutant.path).read_text(), mutant) or ""
            tests = known.tests(mutant, bounds["tests"], bounds["seconds"])
            row = attempt(tree, mutant, changed, tests, known.seconds, out / f"log-{which}.txt")
            file.write(json.dumps(row) + "\n")
            file.flush()
    return report(out, seed)


def transplant(diff: str, source: str) -> str | None:
    """The change of a diff, made in a later source: None if its lines are gone, the source if it is not clear where."""
    body = [line for line in diff.splitlines(keepends=True) if not line.startswith("@@")]
    for lines in (body, [line for line in body if line[0] != " "]):  # what is around it may have changed
        old = "".join(line[1:] for line in lines if line[0] in " -")
        if source.count(old) == 1:
            return source.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    return source if old in source else None


def again(out: Path, seed: int) -> dict[str, Any]:
    """Try the survivors of a sample on the tree as it is now."""
    known, tree = Map(out), out / "tree-again"
    copy_tree(tree)
    fresh = [
        str(file.relative_to(tree))
        for file in sorted(tree.glob("tests/**/test_*.py"))
        if not (was := out / "tree" / file.relative_to(tree)).exists() or was.read_bytes() != file.read_bytes()
    ]
    fresh = [name for name in fresh if name not in CONFIG["mutants"]["ignore"]]
    load_libraries()
    bounds = CONFIG["mutants"]
    with (out / f"rows-{seed}-again.jsonl").open("a") as file:
        for row in rows_of(out, f"rows-{seed}-*.jsonl"):
            if row["outcome"] in ("noticed", "late", "gone"):
                continue
            mutant = Mutant(*(row[name] for name in Mutant._fields))
            changed = transplant(row["diff"], (tree / mutant.path).read_text())
            if changed is None:
                row = {**row, "outcome": "gone"}
            else:
                room = mutant.path.split("/")[1]
                files = sorted(fresh, key=lambda name: (not name.startswith(f"tests/{room}/"), name))
                tests = [*files, *known.tests(mutant, bounds["tests"], bounds["seconds_again"])]
                row = attempt(tree, mutant, changed, tests, known.seconds, out / "log-again.txt")
            file.write(json.dumps(row) + "\n")
            file.flush()
    return report(out, seed)


def report(out: Path, seed: int) -> dict[str, Any]:
    """The share that was noticed, first and with the tests of `again`; and how many of each room."""
    first, last = rows_of(out, f"rows-{seed}-[0-9]*.jsonl"), rows_of(out, f"rows-{seed}-*.jsonl")

    def noticed(rows: list[dict[str, Any]]) -> int:
        return sum(row["outcome"] in ("noticed", "late", "gone") for row in rows)

    rooms = {}
    for room in ROOMS:
        mine = [row for row in last if row["path"].startswith(f"{room}/")]
        rooms[Path(room).name] = f"{noticed(mine)}/{len(mine)}"
    return {
        "seed": seed,
        "mutants": len(first),
        "noticed": round(noticed(first) / max(1, len(first)), 3),
        "noticed_again": round(noticed(last) / max(1, len(last)), 3),
        "outcomes": Counter(row["outcome"] for row in first),
        "outcomes_again": Counter(row["outcome"] for row in last),
        "rooms_again": rooms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("map", "run", "again", "report"))
    parser.add_argument("tests", nargs="*", default=["tests"], help="for map: a part of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--rooms", nargs="+", help="other rooms than those of mutants.toml; with an --out of their own")
    options = parser.parse_args()
    if options.rooms:
        ROOMS[:] = [f"promptgrad/{room}" for room in options.rooms]
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.what == "map":
        answer = make_map(out, options.tests)
    elif options.what == "run":
        answer = run(out, options.seed, options.count, options.part)
    elif options.what == "again":
        answer = again(out, options.seed)
    else:
        answer = report(out, options.seed)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
