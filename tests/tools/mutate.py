"""Change one thing in the core at a time, run its tests, and write down which changes they miss.

    python tests/tools/mutate.py OUT.csv [--minutes 40] [--seed 0] [--only TEXT]

A seeded sample of changes (a comparison, an operator, a number, a condition turned over, an
argument or a statement left out), the rooms taking turns. Each is made in a copy of this checkout,
one at a time, on one core; a copy of its own for each room, as compiled code is kept beside its
source. Rows: file, line, change, the outcome (killed, survived, or late: it ran into the time
limit, which counts as killed), the test that failed, seconds. A survivor is one of three: a change
without an effect, one not worth a test, or a test that is missing; a person has to say which.
Run again with the same arguments, it goes on with what is not in OUT yet.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"

# Imported once, for all the processes that run tests.
import aihwkit.nn
import aihwkit.optim  # noqa: F401
import hypothesis  # noqa: F401
import numba  # noqa: F401
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import timm  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ["settings_are_used", "randomness", "splits", "run_trial", "loop", "stages"]
CROSSBAR = ["independence", "convert", "rpu_config", "checkpoint", "axes"]
ENGINE = ["independence", "parameters", "streams", "devices", "tile", "state"]
# File -> its tests, the quick and telling ones first.
TESTS = {
    **{f"training/{name}.py": [f"training/test_{test}.py" for test in TRAINING]
       for name in ("loop", "stages", "resumable", "run_trial")},
    "training/programming.py": [
        "training/test_settings_are_used.py", "training/test_programming.py",
    ],
    **{f"crossbar/{name}.py": [f"crossbar/test_{test}.py" for test in CROSSBAR]
       for name in ("convert", "rpu_config", "checkpoint")},
    **{f"fastsim/{name}.py": [f"fastsim/test_fast_{test}.py" for test in ENGINE]
       for name in ("streams", "devices", "periphery", "config", "simulator")},
    "tasks/images.py": ["tasks/test_task_splits.py", "tasks/test_images.py"],
    **{f"analysis/{name}.py": ["analysis"]
       for name in ("select_lr", "summaries", "findings", "critical_point", "blocks", "hinge",
                    "curves", "analyse")},
    "analysis/costs.py": ["analysis/test_costs.py"],
    "crossbar/retention.py": ["training/test_after_training.py"],
    "training/track.py": ["training/test_track.py"],
}  # fmt: skip
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
Change = tuple[int, str, Callable[[], None]]  # line, what it does, and how


def _setter(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def changes(tree: ast.Module) -> Iterator[Change]:
    """All changes of a module's code; annotations, decorators and texts are left alone."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop(0)
        line = getattr(node, "lineno", 0)
        kept = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef):
            kept = [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]
        elif isinstance(node, ast.ClassDef):
            kept = [*node.body]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif isinstance(node, ast.AnnAssign):
            kept = [node.value] if node.value else []
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
            if other := SWAPS.get(type(node.op)):
                named = f"{type(node.op).__name__} -> {other.__name__}"
                yield line, f"{named}: {ast.unparse(node)}", _setter(node, "op", other())
        elif isinstance(node, ast.Compare):
            for place, op in enumerate(node.ops):
                ops: list[ast.cmpop] = [*node.ops]
                ops[place] = SWAPS[type(op)]()
                named = f"{type(op).__name__} -> {type(ops[place]).__name__}"
                yield line, f"{named}: {ast.unparse(node)}", _setter(node, "ops", ops)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            yield line, f"+: {ast.unparse(node)}", _setter(node, "op", ast.UAdd())
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = node.value
            new = not value if isinstance(value, bool) else value + 1
            yield line, f"{value} -> {new}", _setter(node, "value", new)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                rest = [one for one in node.keywords if one is not keyword]
                text = f"{ast.unparse(node.func)}(... without {keyword.arg})"
                yield line, text, _setter(node, "keywords", rest)
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            turned = ast.UnaryOp(ast.Not(), node.test)
            yield line, f"not: {ast.unparse(node.test)}", _setter(node, "test", turned)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            text = f"without: {ast.unparse(node)}"
            yield line, text, _setter(node, "value", ast.Constant(None))
        todo += kept


def sample(seed: int, only: str) -> list[tuple[str, int]]:
    """File and number of each change, shuffled; the rooms take turns."""
    rooms: dict[str, list[tuple[str, int]]] = {}
    for file in TESTS:
        tree = ast.parse((ROOT / "analogtl" / file).read_text(encoding="utf-8"))
        rooms.setdefault(file.split("/")[0], []).extend(
            (file, number) for number, _ in enumerate(changes(tree)) if only in file
        )
    dice = random.Random(seed)
    for sites in rooms.values():
        dice.shuffle(sites)
    longest = max(map(len, rooms.values()))
    return [sites[turn] for turn in range(longest) for sites in rooms.values() if turn < len(sites)]


def run(copy: Path, tests: list[str], limit: float) -> tuple[str, str]:
    """Outcome of tests in a copy, and the test that failed."""
    tests = [f"tests/{name}" for name in tests]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        child = os.fork()  # it has the libraries, and imports the copy's own modules
        if child == 0:
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.chdir(copy)
            sys.path.insert(0, str(copy))
            options = ["-q", "-x", "-n", "0", "--tb=no", "-p", "no:cacheprovider"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            code = int(pytest.main([*tests, *options]))
            sys.stdout.flush()
            os._exit(code)
        end = time.monotonic() + limit
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "late", ""
            time.sleep(0.05)
        log.seek(0)
        failed = [line for line in log if line.startswith(("FAILED", "ERROR"))]
    return ("survived" if ended[1] == 0 else "killed"), "".join(failed[:1]).strip()[:160]


def main() -> int:
    """Run a sample; return the exit code."""
    parser = argparse.ArgumentParser(description="Mutation run over the core.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one change")
    options = parser.parse_args()
    known = options.out.read_text().splitlines() if options.out.exists() else []
    done = {(row[0], row[1]) for row in csv.reader(known)}
    end = time.monotonic() + 60 * options.minutes
    sound: list[list[str]] = []  # tests that pass without a change
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", ".*_cache")
    with tempfile.TemporaryDirectory() as folder:
        for file, number in sample(options.seed, options.only):
            if time.monotonic() > end or (file, str(number)) in done:
                continue
            copy = Path(folder) / file.split("/")[0]
            if not copy.exists():
                shutil.copytree(ROOT, copy, ignore=ignored)
            if TESTS[file] not in sound:
                outcome, test = run(copy, TESTS[file], options.limit)
                if outcome != "survived":
                    raise SystemExit(f"without a change, {outcome}: {test}")
                sound.append(TESTS[file])
            path = copy / "analogtl" / file
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
            line, what, apply = list(changes(tree))[number]
            apply()
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
            began = time.monotonic()
            outcome, test = run(copy, TESTS[file], options.limit)
            path.write_text(text, encoding="utf-8")
            spent = f"{time.monotonic() - began:.0f}"
            with open(options.out, "a", newline="", encoding="utf-8") as rows:
                csv.writer(rows).writerow([file, number, line, what, outcome, test, spent])
            print(outcome, f"{file}:{line}", what, test, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
