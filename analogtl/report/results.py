"""Results pages: Markdown whose tables and findings are written by the program, from CSV files.

Between paragraphs of a person's, a page has blocks that begin with a comment and end with
``<!-- end -->``; `rewrite` fills each of them again, so that the page cannot disagree with the
runs::

    <!-- table desk_fig2_2class desk_fig2_5class rows=arm columns=n_classes -->
    <!-- end -->

After the kind of block come the runs, as folders of the results directory; ``*`` stands for any
letters, and ``"RUN:words"`` says what a table calls the run. Then come settings, KEY=VALUE:

``table``
    Numbers over trials, each arm and level at the learning rate that validation error chose.

    - ``rows``, ``columns``: what has a row or column of its own: ``arm``, ``n_classes``, ``run``,
      ``stage`` (a part of the network), or an axis such as ``spv`` or ``analog.algorithm``; two of
      them with ``+``, ``rows=arm+run``. No columns: one for each value.
    - ``values``: with commas, any of ``error_judged`` (what there is without this setting),
      ``error_final``, ``error_best``, ``error_transfer``, ``frechet_distance``, ``in_classes``,
      ``weights_changed``, ``lr``, ``wall_s``, ``n``.
    - ``where``: only these trials, ``where=arm=analog-tl,n_states=20``.
    - ``sort``: a value; its lowest comes first.

``findings``
    A row per published finding that the runs can speak to, a column per task: the verdict, and the
    estimate with its interval, of the first of the runs that can speak to it. ``blocks=10``: a
    verdict that rests on fewer is called open.
``controls``
    At each level of an axis (``rows``): the arm analog-tl, and by how much it is ahead of its
    controls within blocks, ± the standard error; and whether both leads exceed two of them, open
    where a control or blocks are missing.
``tuning``
    What ``[sweep.tune]`` chose for each arm at each level of a run, and how clearly.
``critical``
    What the statistics say of each curve, a list item with a sentence each.
``critical-levels``
    Up to which level no harm is shown, by the judged error, by the last and by the best epoch, a
    column per curve.

Both last take ``where=arm=analog-tl``.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analogtl.analysis import summaries
from analogtl.analysis.analyse import analyse
from analogtl.analysis.blocks import MIN_BLOCKS, blocks_of
from analogtl.analysis.critical_point import JudgedCurve
from analogtl.analysis.curves import Curve, References, metric_in, references
from analogtl.analysis.findings import Finding, JudgedFinding, judge_findings
from analogtl.analysis.judged import epochs_text
from analogtl.analysis.read import RunData, find_runs, read_run
from analogtl.errors import ExperimentError, check_known, counted
from analogtl.files import write_atomically
from analogtl.report import words
from analogtl.report.run_tables import COLUMNS, measured, tuning_table
from analogtl.report.tables import EMPTY, Column, Table, markdown_escape, markdown_rows
from analogtl.study.columns import JUDGED
from analogtl.vocabulary import Arm, CriticalPointVerdict, FindingVerdict, arm_label, label_of

BLOCK: Final = re.compile(
    r"^<!-- (table|findings|controls|tuning|critical-levels|critical) (.*?) -->\n.*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)

VALUES: Final = {
    **{name: COLUMNS[name] for name in ("lr", "wall_s", "frechet_distance", "in_classes")},
    "error_judged": replace(COLUMNS["error_judged"], header="error"),
    "error_final": replace(COLUMNS["error_final"], header="last epoch"),
    "error_best": replace(COLUMNS["error_best"], header="best epoch"),
    "error_transfer": replace(COLUMNS["error_transfer"], header="epoch 0"),
    "weights_changed": replace(COLUMNS["weights_changed"], kind="share"),
    "n": replace(COLUMNS["n"], header="trials"),
}
_SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "table": ("rows", "columns", "values", "sort", "where"),
    "findings": ("blocks",),
    "controls": ("rows", "where"),
    "tuning": (),
}
_HEADS: Final = {"arm": "arm", "n_classes": "task", "run": "run", "stage": "stage"}


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        kind: ``table``, ``findings``, ``controls``, ``tuning``, ``critical`` or
            ``critical-levels``.
        runs: Folder of each run -> what a table calls it.
        beside: Which curves of all runs start from the same trials.
    """

    kind: str
    runs: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    beside: References | None = None

    def listed(self, key: str, default: str = "", by: str = ",") -> list[str]:
        """A setting that is a list."""
        return [part for part in self.settings.get(key, default).split(by) if part]

    @property
    def where(self) -> dict[str, str]:
        """The trials that count: column -> its value, as text."""
        pairs = (part.partition("=") for part in self.listed("where"))
        return {key: value for key, _, value in pairs}


def rewrite(page: Path, results: Path) -> bool:
    """Fill the blocks of a page again; whether that changed it.

    Args:
        page: A Markdown file with blocks (see the module).
        results: The folder that has the runs.

    Raises:
        ExperimentError: A block that cannot be understood, or names a run that is not there.
        RunError: A run cannot be read, or the page not be written.
    """
    text = page.read_text(encoding="utf-8")
    folders = {path.name: path for path in find_runs([results])}
    read = {name: read_run(path, name) for name, path in folders.items()}
    beside = references(run.chosen for run in read.values())
    problems: list[str] = []

    def filled(found: re.Match[str]) -> str:
        try:
            block = replace(parse(found[1], found[2], list(folders)), beside=beside)
            content = _WRITERS[block.kind](block, [read[name] for name in block.runs])
        except ExperimentError as error:
            line = text.count("\n", 0, found.start()) + 1
            problems.append(f"{page}:{line}: {error}")
            return found[0]
        return f"<!-- {found[1]} {found[2]} -->\n\n{content}\n\n<!-- end -->"

    changed = BLOCK.sub(filled, text)
    if problems:
        raise ExperimentError(problems)
    if changed == text:
        return False
    write_atomically(page, changed)
    return True


def parse(kind: str, words: str, folders: Sequence[str]) -> Block:
    """A block from the words of its comment.

    Raises:
        ExperimentError: No such run, setting or value.
    """
    runs, settings = {}, {}
    for word in shlex.split(words):
        key, equals, value = word.partition("=")
        if equals and re.fullmatch("[a-z_]+", key):
            check_known(f"{kind}: setting", [key], _SETTINGS.get(kind, ("where",)))
            if key == "blocks" and not value.isdecimal():
                raise ExperimentError(f"{kind}: blocks: expected a whole number; got {value!r}")
            settings[key] = value
            continue
        pattern, _, label = word.partition(":")
        found = [name for name in folders if fnmatch(name, pattern)]
        if not found:
            check_known("run", [pattern], folders)
        runs.update({name: label or name for name in found})
    block = Block(kind, runs, settings)
    check_known("value", block.listed("values"), VALUES)
    check_known("sort", block.listed("sort"), block.listed("values", JUDGED))
    return block


# -------------------------------------------------------------------------------------- tables


def _table(block: Block, runs: Sequence[RunData]) -> str:
    """Values by rows and columns."""
    rows, columns = block.listed("rows", "arm", "+"), block.listed("columns", by="+")
    trials = _selected(block, [_source(run, "stage" in rows + columns) for run in runs])
    metric = metric_in(pd.concat([run.trials for run in runs]))
    values = [measured(VALUES[name], metric) for name in block.listed("values", JUDGED)]
    check_known("rows or columns", [*rows, *columns], trials.columns)
    for key in rows if "arm" in rows else ():  # an arm that has no such level keeps its row
        if trials[key].isna().any():
            trials = trials.assign(**{key: trials[key].astype(object).fillna(EMPTY)})
    judged = epochs_text(trials, short=True)
    values = [replace(one, header=judged) if one.key == JUDGED else one for one in values]
    groups = _ordered(trials, columns) if columns else [()]
    frame = pd.DataFrame(
        [dict(zip(rows, map(_text, rows, row), strict=True)) for row in _ordered(trials, rows)]
    )
    shown = [Column(key, _HEADS.get(key) or label_of(key)) for key in rows]
    levels = len(columns) == len(values) == 1 and columns[0] not in _HEADS
    if levels:
        shown[-1] = replace(shown[-1], header=f"{values[0].heading} at {label_of(columns[0])}")
    for number, group in enumerate(groups):
        name = ", ".join(map(_text, columns, group))
        mine = _equal(trials, columns, group)
        cells = [_of_one_run(_equal(mine, rows, row)) for row in _ordered(trials, rows)]
        for value in values:
            numbers = [cell[value.key] for cell in cells]
            key = f"{value.key}.{number}"
            if value.kind == "number":
                frame[f"{key}_mean"] = [one.mean() for one in numbers]
                frame[f"{key}_sd"] = [one.std(ddof=1) for one in numbers]
            else:
                frame[key] = [
                    one.sum(min_count=1) if value.key == "n" else one.mean() for one in numbers
                ]
            head = ", ".join(filter(None, (name, value.header if values[1:] or not name else "")))
            unit = "" if levels else value.unit
            shown.append(replace(value, key=key, header=head, unit=unit))
    if by := block.settings.get("sort"):
        frame = frame.sort_values(f"{by}.0_mean" if f"{by}.0_mean" in frame else f"{by}.0")
    text = markdown_rows(Table("results", "", frame, tuple(shown)))
    return text + _not_tuned(runs, [*rows, *columns])


def _not_tuned(runs: Sequence[RunData], shown: Iterable[str]) -> str:
    """That what rows or columns compare was not tuned; "" where it was."""
    axes = [axis for axis in shown if any(axis in run.untuned for run in runs)]
    return f"\n\n{words.not_tuned(axes)}" if axes else ""


def _source(run: RunData, by_stage: bool) -> pd.DataFrame:
    """The trials that count; or what moved in each stage of the network."""
    analysis = analyse(run)
    if not by_stage:
        return analysis.trials
    return analysis.stages.rename(columns={"weights_changed_mean": "weights_changed"})


def _selected(block: Block, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The frames of the block's runs as one, with what the run is called, and where it counts."""
    labels = block.runs.values()
    named = [frame.assign(run=label) for frame, label in zip(frames, labels, strict=True)]
    together = pd.concat(named, ignore_index=True).assign(n=1)
    check_known("where: column", block.where, together.columns)
    for key, text in block.where.items():
        shown = together[key].map(partial(summaries.level_text, key))
        together = together[shown == text]
    if together.empty:
        raise ExperimentError("no trial of these runs is left")
    return together


def _ordered(trials: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """The groups of a table: arms in their order, numbers ascending, names as they come."""
    groups = trials[list(keys)].dropna().drop_duplicates()
    order = {
        key: summaries.arms_of(trials) if key == "arm" else summaries.sorted_levels(trials[key])
        for key in keys
    }
    groups = groups.sort_values(
        list(keys), key=lambda c: c.map(order[str(c.name)].index).astype(int)
    )
    return list(groups.itertuples(index=False, name=None))


def _equal(trials: pd.DataFrame, keys: Sequence[str], values: Sequence[Any]) -> pd.DataFrame:
    for key, value in zip(keys, values, strict=True):
        trials = trials[trials[key] == value]
    return trials


def _of_one_run(cell: pd.DataFrame) -> pd.DataFrame:
    """The trials of a cell: runs may differ in more than rows and columns, so of one run alone."""
    runs = [str(run) for run in cell["run"].unique()]
    if runs[1:]:
        raise ExperimentError(
            f"trials of {' and '.join(runs)} would be in one cell: show 'run' as a row or a "
            "column, or name one of them"
        )
    return cell


def _text(key: str, level: Any) -> str:
    """What a table calls a row or a column."""
    if key == "arm":
        return arm_label(str(level))
    if key == "n_classes":
        return f"{level} classes"
    return EMPTY if level == EMPTY else summaries.with_unit(key, level)


# ----------------------------------------------------------------------- what the statistics say


def _findings(block: Block, runs: Sequence[RunData]) -> str:
    """A row per finding, a column per task."""
    enough = int(block.settings.get("blocks", 0))
    answers: dict[Finding, list[JudgedFinding]] = {}
    for one in judge_findings([analyse(run) for run in runs], published=True):
        if one.experiment:
            answers.setdefault(one.finding, []).append(one)
    tasks = sorted({one.n_classes or 0 for mine in answers.values() for one in mine})
    rows = [
        {"finding": words.statement(finding)}
        | {
            str(task): _answer([one for one in mine if (one.n_classes or 0) == task], enough)
            for task in tasks
        }
        for finding, mine in answers.items()
    ]
    columns = (Column("finding", "finding"), *(Column(str(t), f"{t} classes") for t in tasks))
    return markdown_rows(Table("findings", "", pd.DataFrame(rows), columns))


def _answer(answers: Sequence[JudgedFinding], enough: int) -> str:
    """``holds: 9.4 points [5.3, 13.5]``, by the first run, for each of its settings."""
    said = []
    for one in answers:
        if one.experiment != answers[0].experiment:
            break
        numbers = ""
        if one.estimate.value is not None:
            found = one.estimate
            interval = f" [{found.low:.1f}, {found.high:.1f}]" if found.low is not None else ""
            numbers = f": {found.value:.1f} {found.unit}{interval}"
        verdict = one.verdict
        if one.n_blocks < enough and verdict is not FindingVerdict.OPEN:
            verdict = FindingVerdict.OPEN
            numbers += f"; {counted(one.n_blocks, 'block')}"
        own = f"analog.algorithm={getattr(one.finding, 'algorithm', '')}"  # the statement has it
        said.append(
            (f"{one.at}: " if one.at not in ("", own) else "")
            + verdict.label.partition(":")[0]
            + numbers
        )
    return "; ".join(said)


def _controls(block: Block, runs: Sequence[RunData]) -> str:
    """A row per run and level."""
    axis = block.settings.get("rows", "analog.device.preset")
    trials = _selected(block, [_source(run, by_stage=False) for run in runs])
    check_known("rows", [axis], trials.columns)
    trials, metric = trials.assign(block=blocks_of), metric_in(trials)
    controls = (Arm.FROZEN_ARRAY, Arm.SHUFFLED_GRADIENTS)
    rows = []
    for run, level in _ordered(trials, ["run", axis]):
        here = _equal(trials, ["run", axis], (run, level))
        by_block = here.pivot(index="block", columns="arm", values=JUDGED)
        mine = by_block.get(Arm.ANALOG_TL, pd.Series(dtype=float)).dropna()
        row: dict[str, Any] = {"run": run, "level": _text(axis, level), "blocks": len(mine)}
        row |= {"error_mean": float(mine.mean()), "error_sd": float(mine.std(ddof=1))}
        ahead = []
        for control in controls:
            if control in by_block:
                lead = (by_block[control] - mine).dropna().to_numpy(dtype=float)
                spread = float(lead.std(ddof=1)) if len(lead) > 1 else math.nan
                mean, se = float(lead.mean()), spread / math.sqrt(len(lead))
                row |= {f"{control}_mean": mean, f"{control}_sd": se}
                if len(lead) >= MIN_BLOCKS:
                    ahead.append(mean > 2 * se)
        learns: bool | str = all(ahead) if len(ahead) == len(controls) else "open"
        rows.append(row | {"learns": learns})
    columns = (
        Column("run", "network", if_varied=True),
        Column("level", label_of(axis)),
        Column("blocks", "blocks", kind="count", if_varied=True),
        measured(
            Column("error", f"analog TL, {epochs_text(trials, short=True)}", "%", "number"), metric
        ),
        *(
            Column(
                *(arm, f"ahead of {arm_label(arm)}", f"{metric.gap} ± SE".strip(), "number"),
                digits=metric.decimals,
            )
            for arm in controls
        ),
        Column("learns", "learns"),
    )
    table = Table("controls", "", pd.DataFrame(rows), columns)
    needed = tuple(column for column in columns if column.is_needed(table.frame))
    return markdown_rows(replace(table, columns=needed)) + _not_tuned(runs, [axis])


def _tuning(block: Block, runs: Sequence[RunData]) -> str:
    """A table per run."""
    texts = []
    for run in runs:
        if run.tuning.empty:
            raise ExperimentError(f"{run.name}: nothing was tuned")
        texts.append(markdown_rows(tuning_table(run.tuning, run.trials, metric_in(run.trials))))
    return "\n\n".join(texts)


def _judged(
    block: Block, runs: Sequence[RunData], metric: str
) -> Iterator[tuple[str, JudgedCurve]]:
    """The curves of the runs that have data enough, and what a table calls each."""
    check_known("where: column", block.where, Curve.__annotations__)
    found: dict[str, set[str]] = {key: set() for key in block.where}
    for run, label in zip(runs, block.runs.values(), strict=True):
        judged = []
        for one in analyse(run, metric=metric, beside=block.beside).curves:
            values = {key: str(getattr(one.curve, key)) for key in block.where}
            for key, value in values.items():
                found[key].add(value)
            if values == block.where and one.point.verdict is not CriticalPointVerdict.NO_DATA:
                judged.append(one)
        for one in judged:
            is_named = label != run.name and len(judged) == 1
            yield label if is_named else f"{label}, {words.curve_name(one.curve)}", one
    for key, value in block.where.items():
        check_known(f"where: {key}", [value], sorted(found[key]))


def _critical(block: Block, runs: Sequence[RunData]) -> str:
    """A list item per curve."""
    judged = _judged(block, runs, JUDGED)
    return "\n".join(f"- {name}: {markdown_escape(words.sentences(one))}" for name, one in judged)


def _critical_levels(block: Block, runs: Sequence[RunData]) -> str:
    """A row per way to take the error, a column per curve."""
    rows = []
    for metric in (JUDGED, "error_final", "error_best"):
        levels = {name: _level(one) for name, one in _judged(block, runs, metric)}
        rows.append({"by": "judged error" if metric == JUDGED else VALUES[metric].header} | levels)
    frame = pd.DataFrame(rows).fillna(EMPTY)
    shown = (Column("by", "no harm shown up to"), *(Column(key, key) for key in frame.columns[1:]))
    return markdown_rows(Table("critical-levels", "", frame, shown))


def _level(one: JudgedCurve) -> str:
    """Up to which level no harm is shown."""
    if one.point.critical is not None:
        return summaries.with_unit(one.curve.axis, one.point.critical)
    return "unfit reference" if one.point.unfit else "every level"


_WRITERS: Final[dict[str, Callable[[Block, Sequence[RunData]], str]]] = {
    "table": _table,
    "findings": _findings,
    "controls": _controls,
    "tuning": _tuning,
    "critical": _critical,
    "critical-levels": _critical_levels,
}
