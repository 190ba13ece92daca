"""Whatever becomes of an experiment file, the answer is a valid plan or a list of problems.

Valid files are mutated at random: keys, types, values, sections, bytes, and settings of the command
line. A slice runs by default; all 10,000: ``pytest -m slow tests/study/test_mutations.py``.
"""

from __future__ import annotations

import copy
import json
import random
import signal
import string
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from analogtl.config.load import load_experiment
from analogtl.config.shipped import shipped_experiments, shipped_folder
from analogtl.errors import ExperimentError
from analogtl.scheduling.plan import plan
from analogtl.study.basis import no_look
from analogtl.study.run_dir import RunDir
from analogtl.study.study import Study
from analogtl.study.trial import MAX_TRIALS

MANY = 10_000
FEW = 200
SECONDS = 10  # for one file; more counts as a hang

FULL = """
name = "full"
description = "every section, most kinds of values"
[model]
architecture = "mlp_digits"
kwargs = { width = 32, depths = [2, 2] }
[data]
root = "data"
download = false
image_size = 8
[pretrain]
dataset = "digits"
classes = [0, 1, 2, 3, 4]
optimizer = "adamw"
lr = 0.002
schedule = "onecycle"
augment = ["crop", "flip"]
[convert]
weight_transfer_noise = 2.0
relative_to = "std"
digital_layers = ["head"]
[finetune]
classes = 2
arms = ["digital-tl", "analog-tl", "frozen-array"]
epochs = 2
validation_fraction = 0.2
[analog]
algorithm = "c-ttv2"
engine = "fast"
device = { preset = "ReRamArrayHfO2PresetDevice", dw_min_std = 0.3 }
compound = { transfer_every = 1.0, auto_granularity = 10000, in_chop_prob = 0.10 }
forward = { out_noise = 0.06 }
update = { desired_bl = 31 }
nonidealities = { symmetry_point_skew = 5.0, n_states = 20 }
[sweep]
seeds = [0, 1, 2]
lr = [0.005, 0.01]
[sweep.axes]
wtn = [0, 5, 10]
"analog.mapping.weight_scaling_omega" = [0.0, 0.6]
[report]
alpha = 0.05
"""

WILD: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: r.choice([True, False]),
    lambda r: r.choice([0, 1, -1, 2, 7, 2**31, 2**63, 10**400, -(10**25)]),
    lambda r: r.choice([0.0, -0.0, 1e-320, 1e308, -1e308, 0.1, -3.5, 1e22]),
    lambda r: r.choice([float("inf"), float("-inf"), float("nan")]),
    lambda r: r.choice(["", "x", "0.1", "cifar10", "../../etc/passwd", "\0", "ä" * 300, "[1, 2]"]),
    lambda r: "".join(r.choices(string.printable, k=r.randrange(40))),
    lambda r: chr(r.choice([0x7F, 0x85, 0x2028, 0xD7FF, 0xFFFF, 0x1F600])) * r.randrange(1, 5),
    lambda r: [],
    lambda r: {},
    lambda r: [r.choice([1, "a", 0.5, True, [], {}]) for _ in range(r.randrange(1, 5))],
    lambda r: {r.choice(["a", "", "lr", "x.y", "classes"]): r.choice([1, "a", {}, [[]]])},
    lambda r: list(range(r.choice([3, 50, 1000]))),
    lambda r: [[[[[1]]]]],
)


def valid_files() -> list[str]:
    """The text of every shipped experiment (what it extends is put in), and of `FULL`."""
    texts = [FULL]
    for name in shipped_experiments():
        text = (shipped_folder() / f"{name}.toml").read_text(encoding="utf-8")
        if "extends" not in text:
            texts.append(text)
    return texts


def mutate(text: str, dice: random.Random, shipped: list[str]) -> tuple[bytes, list[str]]:
    """A mutant of an experiment file, and settings of a command line to go with it."""
    overrides: list[str] = []
    kind = dice.randrange(10)
    if kind == 0:
        odd = [b"\xef\xbb\xbf", b"\0", b"\r", b"[[", b"}", b'"""']
        pieces = [bytes([byte]) for byte in text.encode()]
        content = _parts(pieces, dice, lambda _: dice.choice([*odd, dice.randbytes(1)]))
    elif kind == 1:
        signs = [b"", b"==", b":", b"= {", b"= ["]
        lines = text.encode().splitlines(keepends=True)
        content = _parts(lines, dice, lambda line: line.replace(b"=", dice.choice(signs), 1))
    elif kind == 2:
        content = text.encode()
        overrides = [_override(text, dice) for _ in range(dice.randrange(1, 4))]
    elif kind == 3:
        base = dice.choice([*shipped, ".", "..", "x", 5, "", "a" * 300])
        content = f"extends = {json.dumps(base)}\n{text}".encode()
    else:
        data = tomllib.loads(text)
        for _ in range(dice.choice([1, 1, 1, 2, 5])):
            _change(data, dice)
        content = tomli_w.dumps(data).encode(errors="surrogatepass")
    return content, overrides


def _parts(parts: list[bytes], dice: random.Random, spoil: Callable[[bytes], bytes]) -> bytes:
    """Bytes or lines, of which some are removed, repeated, exchanged or spoilt."""
    for _ in range(dice.choice([1, 3, 30])):
        if not parts:
            break
        place, other = dice.randrange(len(parts)), dice.randrange(len(parts))
        what = dice.randrange(4)
        if what == 0:
            del parts[place : place + dice.randrange(1, 1 + max(1, len(parts) // 20))]
        elif what == 1:
            parts.insert(other, parts[place])
        elif what == 2:
            parts[place], parts[other] = parts[other], parts[place]
        else:
            parts[place] = spoil(parts[place])
    return b"".join(parts)


def _change(data: dict[str, Any], dice: random.Random) -> None:
    """Change one thing somewhere in a tree: a key, a value, its type, or its place."""
    tables = list(_tables(data))
    table = dice.choice(tables)
    if not table:
        table["x"] = 1
        return
    key = dice.choice(list(table))
    what = dice.randrange(8)
    if what == 0:
        del table[key]
    elif what == 1:
        table[_misspelt(key, dice)] = table.pop(key)
    elif what == 2:
        dice.choice(tables)[key] = copy.deepcopy(table[key])
    elif what == 3:
        table[dice.choice(["lr", "seed", "name", "", "a b", "ä", key + "x"])] = table[key]
    elif what == 4 and isinstance(table[key], list) and table[key]:
        table[key][dice.randrange(len(table[key]))] = dice.choice(WILD)(dice)
    elif what == 5 and isinstance(table[key], int | float):
        table[key] = type(table[key])(-table[key]) if dice.random() < 0.5 else str(table[key])
    else:
        table[key] = dice.choice(WILD)(dice)


def _tables(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield data
    for value in data.values():
        if isinstance(value, dict):
            yield from _tables(value)


def _misspelt(key: str, dice: random.Random) -> str:
    place = dice.randrange(len(key) + 1)
    return key[:place] + dice.choice([*"aex_-. ", ""]) + key[place + dice.randrange(2) :]


def _override(text: str, dice: random.Random) -> str:
    data = tomllib.loads(text)
    tables = [(f"{name}.", value) for name, value in data.items() if isinstance(value, dict)]
    prefix, table = dice.choice([("", data), *tables])
    key = dice.choice(list(table) or ["x"])
    value = dice.choice(WILD)(dice)
    shown = dice.choice([json.dumps(value), str(value)[:500]])
    return dice.choice([f"{prefix}{key}={shown}", f"{key}{shown}", f"..{key}={shown}", f"={shown}"])


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail if a block takes longer (whatever it is busy with)."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(file: Path, overrides: list[str], run: RunDir) -> str:
    """``plan`` or ``problems``; anything else that happens is a bug and passes through."""
    try:
        with no_longer_than(SECONDS):
            experiment = load_experiment(file, overrides)
            study = Study(experiment, run, sweep=True, look=no_look)
            planned = plan(next(iter(study.phases())))  # where settings are tuned: that, first
    except ExperimentError as error:
        problems = error.problems
    else:
        problems = []
    for line in problems:
        assert line.strip()
        assert line.isprintable(), f"one clear line per problem: {line!r}"
        assert "Traceback" not in line
    if problems:
        return "problems"
    assert 1 <= len(planned.trials) <= MAX_TRIALS
    assert len({trial.id for trial in planned.trials}) == len(planned.trials)
    return "plan"


def survive(tmp_path: Path, numbers: range) -> Counter[str]:
    run = RunDir(tmp_path / "runs", "x")
    file = tmp_path / "mutant.toml"
    texts, shipped = valid_files(), shipped_experiments()
    counts: Counter[str] = Counter()
    for number in numbers:
        dice = random.Random(number)
        content, overrides = mutate(dice.choice(texts), dice, shipped)
        file.write_bytes(content)
        try:
            counts[outcome(file, overrides, run)] += 1
        except BaseException as error:
            shown = content.decode(errors="backslashreplace")[:3000]
            error.add_note(f"mutant {number}, --set {overrides}:\n{shown}")
            raise
    return counts


def test_the_files_to_mutate_are_valid(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs", "x")
    file = tmp_path / "valid.toml"
    for text in valid_files():
        file.write_text(text, encoding="utf-8")
        assert outcome(file, [], run) == "plan"


def test_mutants_end_in_a_plan_or_in_problems(tmp_path: Path) -> None:
    counts = survive(tmp_path, range(FEW))
    assert counts["plan"] > FEW / 20, "some mutations do no harm"
    assert counts["problems"] > FEW / 4


@pytest.mark.slow
def test_ten_thousand_mutants_end_in_a_plan_or_in_problems(tmp_path: Path) -> None:
    counts = survive(tmp_path, range(MANY))
    assert counts.total() == MANY
