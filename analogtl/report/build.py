"""The report: tables, figures and one HTML page from any number of runs, finished or not."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analogtl import __version__
from analogtl.analysis import summaries
from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.findings import Finding, JudgedFinding, judge_findings
from analogtl.analysis.read import RunData, find_runs, read_run, run_names
from analogtl.errors import ExperimentError, RunError
from analogtl.files import write_atomically
from analogtl.report import figures as plots
from analogtl.report import page as html
from analogtl.report import sections as study
from analogtl.report import tables, words
from analogtl.report.sections import Section
from analogtl.report.tables import Table
from analogtl.vocabulary import Arm, FindingVerdict

FORMATS = ("html", "markdown", "csv", "latex", "png", "svg", "pdf")
DEFAULT_FORMATS = ("html", "markdown", "csv", "png", "svg")
MAX_LATEX_ROWS = 60  # about a page; longer tables are data, and the CSV files have them
MAX_TRIALS_LISTED = 3000  # on the HTML page; trials.csv has them all

PAPER = (
    "Assessing the Performance of Analog Training for Transfer Learning",
    "https://arxiv.org/abs/2505.11067",
)
CITATIONS = """\
@article{fagbohungbe2025assessing,
  author  = {Fagbohungbe, Omobayode and Lammie, Corey and Rasch, Malte J. and Ando, Takashi
             and Gokmen, Tayfun and Narayanan, Vijay},
  title   = {Assessing the Performance of Analog Training for Transfer Learning},
  journal = {arXiv:2505.11067},
  year    = {2025},
  note    = {published version: doi:10.1109/tcsii.2025.3596457}
}

@software{analogtl,
  author  = {{The analogtl developers}},
  title   = {analogtl: analog transfer learning experiments on simulated resistive crossbars},
  version = {%s},
  year    = {2025}
}

@inproceedings{rasch2021flexible,
  author    = {Rasch, Malte J. and Moreda, Diego and Gokmen, Tayfun and Le Gallo, Manuel and
               Carta, Fabio and Goldberg, Cindy and El Maghraoui, Kaoutar and Sebastian, Abu and
               Narayanan, Vijay},
  title     = {A Flexible and Fast {PyTorch} Toolkit for Simulating Training and Inference on
               Analog Crossbar Arrays},
  booktitle = {IEEE 3rd International Conference on Artificial Intelligence Circuits and Systems
               (AICAS)},
  year      = {2021},
  doi       = {10.1109/AICAS51828.2021.9458494}
}"""


@dataclass(frozen=True)
class ReportResult:
    """What was made.

    Attributes:
        out: The report's folder.
        paths: Every file written.
        tables: The tables, for the terminal.
        messages: What is missing, failed or unreadable, a line each.
    """

    out: Path
    paths: list[Path]
    tables: list[Table]
    messages: list[str]


def build_report(
    run_dirs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    formats: Iterable[str] = DEFAULT_FORMATS,
    margin: float | None = None,
    alpha: float | None = None,
) -> ReportResult:
    """Make the report of one or more runs.

    Args:
        run_dirs: Run directories, or folders with run directories anywhere below them.
        out: Folder to write to; by default ``report/`` in the run, or in the folder of runs.
        formats: Any of `FORMATS`. ``html``: one self-contained page; ``markdown``: one document
            with the tables and figures; ``csv``: every table with all its digits; ``latex``:
            booktabs tables and PDF figures; ``png``, ``svg``, ``pdf``: the figures.
        margin: Percentage points of test error that count as harmless for the certified level; by
            default each experiment's own.
        alpha: Significance level of the critical point's tests; by default each experiment's own.

    Returns:
        The paths written, the tables, and messages on what is missing.

    Raises:
        ExperimentError: No run there, an unknown format, or a bad margin or alpha.
        RunError: None of the runs can be read, or the report cannot be written.
    """
    kinds = _checked(formats, margin, alpha)
    where = [Path(place) for place in run_dirs]
    paths = find_runs(where)
    runs, messages = _read(paths)
    target = Path(out) if out is not None else _default_out(where, paths)
    analyses = [analyse(run, margin=margin, alpha=alpha) for run in runs]
    sections = [study.study(analysis) for analysis in analyses]
    for run in runs:
        messages += [*run.unreadable, *_progress(run)]
    findings = judge_findings(analyses)
    shared = _shared_tables(sections, findings)
    written = _Writer(target, kinds)
    placed = [
        (section, Path() if len(sections) == 1 else Path(study.slug(section.run.run.name)))
        for section in sections
    ]
    for section, folder in placed:
        written.tables([*section.tables, *section.more_tables], folder)
    written.figures_of(placed)
    written.tables(shared, Path())
    if "markdown" in kinds:
        written.text(Path("report.md"), _markdown(sections, shared, messages, written))
    if "html" in kinds:
        page = _page(sections, shared, findings, messages, where)
        written.text(Path("report.html"), html.render(page))
    everything = [t for s in sections for t in (*s.tables, *s.more_tables)] + shared
    shared_names = {table.name for table in shared}  # not a second time, per run
    everything = [t for t in everything if not (t.experiment and t.name in shared_names)]
    return ReportResult(target, written.paths, everything, messages)


def _checked(formats: Iterable[str], margin: float | None, alpha: float | None) -> list[str]:
    kinds = list(dict.fromkeys(formats))
    problems = [
        f"format {kind!r}: unknown; expected {', '.join(FORMATS)}"
        for kind in kinds
        if kind not in FORMATS
    ]
    if margin is not None and not margin > 0:
        problems.append(f"margin {margin:g}: expected percentage points above 0")
    if alpha is not None and not 0 < alpha < 0.5:
        problems.append(f"alpha {alpha:g}: expected a number between 0 and 0.5")
    if not kinds:
        problems.append(f"no format given; expected {', '.join(FORMATS)}")
    if problems:
        raise ExperimentError(problems)
    return kinds


def _read(paths: Sequence[Path]) -> tuple[list[RunData], list[str]]:
    runs, messages = [], []
    for path, name in zip(paths, run_names(paths), strict=True):
        try:
            runs.append(read_run(path, name))
        except RunError as error:
            messages.append(f"left out: {error}")
    if not runs:
        raise RunError("\n".join(messages))
    return runs, messages


def _default_out(where: Sequence[Path], paths: Sequence[Path]) -> Path:
    if len(paths) == 1:
        return paths[0] / "report"
    return (where[0] if len(where) == 1 else where[0].parent) / "report"


def _progress(run: RunData) -> list[str]:
    """What is missing of one run, in a line; nothing if it is complete."""
    unfinished = run.unfinished()
    failed = int((unfinished["state"] == "failed").sum())
    missing = int((unfinished["state"] == "missing").sum())
    finished = len(summaries.done(run.trials))
    if not len(run.trials) and run.planned is None:
        return [f"{run.name}: no trial has finished"]
    if not failed and not missing:
        return []
    parts = [f"{finished} of {finished + len(unfinished)} trials done"]
    if failed:
        parts.append(f"{failed} failed")
    if missing:
        parts.append(f"{missing} missing")
    return [f"{run.name}: {', '.join(parts)}"]


# ------------------------------------------------------------------------------ shared tables


def _shared_tables(sections: Sequence[Section], findings: Sequence[JudgedFinding]) -> list[Table]:
    """Tables over all runs: findings, critical points of several runs, what is missing."""
    shared = [tables.findings_table(findings)] if findings else []
    curves = [curve for section in sections for curve in section.run.curves]
    if len(sections) > 1 and curves:
        shared.append(tables.critical_points_table(curves))
    unfinished = pd.concat(
        [section.run.run.unfinished() for section in sections], ignore_index=True
    )
    if len(unfinished):
        shared.append(tables.unfinished_table(unfinished))
    return shared


# ------------------------------------------------------------------------------------- writing


class _Writer:
    """Writes below one folder, each file at once or not at all, and remembers what it wrote."""

    def __init__(self, target: Path, kinds: Sequence[str]) -> None:
        self.target = target
        self.paths: list[Path] = []
        self.figures: dict[str, list[Path]] = {}
        self.kinds = kinds
        figures = {kind for kind in kinds if kind in ("png", "svg", "pdf")}
        if "latex" in kinds:
            figures.add("pdf")
        if "markdown" in kinds and not figures & {"png", "svg"}:
            figures.add("png")
        self.figure_kinds = sorted(figures, key=FORMATS.index)

    def text(self, name: Path, content: str) -> None:
        """One text file."""
        path = self.target / name
        write_atomically(path, content)
        self.paths.append(path)

    def tables(self, listed: Iterable[Table], folder: Path) -> None:
        """Tables as files of their own, in the formats that have them."""
        writers: dict[str, tuple[str, Callable[[Table], str]]] = {
            "csv": ("csv", tables.to_csv),
            "latex": ("tex", tables.to_latex),
        }
        for table in listed:
            for kind, (suffix, write) in writers.items():
                fits = kind == "csv" or 0 < len(table) <= MAX_LATEX_ROWS
                if kind in self.kinds and fits:
                    self.text(folder / f"{table.name}.{suffix}", write(table))

    def figures_of(self, placed: Sequence[tuple[Section, Path]]) -> None:
        """The figures of all runs, each run's in its folder."""
        if not self.figure_kinds:
            return
        figures = [
            (draw, self.target / folder / stem)
            for section, folder in placed
            for stem, draw in section.figures.items()
        ]
        names = [section.run.run.name for section, _ in placed for _ in section.figures]
        for name, saved in zip(names, plots.save_all(figures, self.figure_kinds), strict=True):
            self.paths += saved
            self.figures.setdefault(name, []).append(saved[0])


def _markdown(
    sections: Sequence[Section],
    shared: Sequence[Table],
    messages: Sequence[str],
    written: _Writer,
) -> str:
    parts = ["# " + tables.markdown_escape(_title(sections))]
    if messages:
        parts.append("\n".join(f"- {tables.markdown_escape(line)}" for line in messages))
    parts += [tables.to_markdown(table) for table in shared if len(table)]
    for section in sections:
        parts.append("## " + tables.markdown_escape(section.run.run.name))
        if section.run.run.description:
            parts.append(tables.markdown_escape(section.run.run.description))
        parts += [tables.markdown_escape(words) for words in section.words]
        parts += [tables.to_markdown(table) for table in section.tables]
        for path in written.figures.get(section.run.run.name, []):
            relative = path.relative_to(written.target).as_posix()
            parts.append(f"![{path.stem.replace('-', ' ')}]({relative})")
        parts += [tables.to_markdown(table) for table in section.more_tables if len(table) <= 60]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


# ------------------------------------------------------------------------------------ the page


def _title(sections: Sequence[Section]) -> str:
    if len(sections) == 1:
        return sections[0].run.run.name
    return f"Analog transfer learning: {len(sections)} experiments"


def _page(
    sections: Sequence[Section],
    shared: Sequence[Table],
    findings: Sequence[JudgedFinding],
    messages: Sequence[str],
    where: Sequence[Path],
) -> html.Page:
    everything = pd.concat([s.run.run.trials for s in sections], ignore_index=True)
    listed = len(everything) <= MAX_TRIALS_LISTED
    notices = list(messages)
    if not listed:
        notices.append(
            f"{len(everything)} trials are too many to list here: they are in trials.csv"
        )
    runs = []
    used: set[str] = set()
    for section in sections:
        anchor = _unique(f"run-{study.slug(section.run.run.name).lower()}", used)
        runs.append(_run(section, anchor))
    return html.Page(
        title=_title(sections),
        subtitle="Analog transfer learning: pretrained digitally, fine-tuned on simulated "
        "resistive crossbars",
        glance=_glance(everything),
        notices=notices,
        findings=_cards(findings),
        findings_note=_findings_note(findings),
        tables=[table for table in shared[1:] if len(table)],
        runs=runs,
        trials=tables.trials_table(everything) if listed and len(everything) else None,
        again=_again(sections, where),
        again_note="The commands that made these runs, and this report:",
        citations=CITATIONS % __version__,
        version=__version__,
        made=datetime.now(UTC).strftime("%d %B %Y"),
        sources=", ".join(section.run.run.name for section in sections),
    )


_KINDS = {FindingVerdict.HOLDS: "good", FindingVerdict.FAILS: "bad", FindingVerdict.OPEN: "open"}


def _cards(findings: Sequence[JudgedFinding]) -> list[html.Finding]:
    """The findings that some run can speak to, each with its answers."""
    answers: dict[Finding, list[html.Answer]] = {}
    for one in findings:
        if one.experiment:
            answers.setdefault(one.finding, []).append(_answer(one))
    return [
        html.Finding(
            claim=words.statement(finding),
            source=", ".join(filter(None, (finding.source, finding.figure)))
            + f": {words.published(finding)}",
            answers=tuple(mine),
        )
        for finding, mine in answers.items()
    ]


def _answer(judged: JudgedFinding) -> html.Answer:
    task = "" if judged.n_classes is None else f", {judged.n_classes}-class task"
    at = f" at {judged.at}" if judged.at else ""
    return html.Answer(
        verdict=judged.verdict.value,
        kind=_KINDS[judged.verdict],
        where=f"{judged.experiment}{task}{at}",
        says=" ".join(filter(None, (words.says(judged), words.movement(judged)))),
        trials=judged.trials,
    )


def _findings_note(findings: Sequence[JudgedFinding]) -> str:
    """Which findings no run here speaks to."""
    spoken = {one.finding for one in findings if one.experiment}
    silent = dict.fromkeys(one.finding for one in findings if one.finding not in spoken)
    if not silent:
        return ""
    return f"{len(silent)} further findings have no run here: " + " ".join(
        words.statement(finding) for finding in silent
    )


def _unique(name: str, used: set[str]) -> str:
    candidate, number = name, 2
    while candidate in used:
        candidate, number = f"{name}-{number}", number + 1
    used.add(candidate)
    return candidate


def _glance(trials: pd.DataFrame) -> list[tuple[str, str]]:
    finished = summaries.done(trials)
    seeds = finished.groupby("experiment")["seed"].nunique()
    spread = "0" if seeds.empty else _range(int(seeds.min()), int(seeds.max()))
    glance = [
        (str(len(finished)), "trials done"),
        (spread, "seeds"),
        (str(finished["arm"].nunique()), "arms"),
    ]
    hours = finished["wall_s"].sum() if "wall_s" in finished else 0
    if hours:
        glance.append((tables.duration(float(hours)), "of training"))
    failed = len(trials) - len(finished)
    if failed:
        glance.insert(1, (str(failed), "failed"))
    return glance


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _run(section: Section, anchor: str) -> html.Run:
    run = section.run.run
    return html.Run(
        id=anchor,
        name=run.name,
        description=run.description,
        facts=_facts(section.run),
        words=section.words,
        charts=section.charts,
        tables=section.tables,
        layer_charts=section.layer_charts,
        more_tables=section.more_tables,
        resolved=html.pretty_json(run.experiment) if run.experiment else "",
        provenance=html.flatten(run.provenance),
    )


def _facts(analysis: RunAnalysis) -> list[tuple[str, str]]:
    """What the experiment is, from its settings; whatever is not there is left out."""
    run, setting = analysis.run, analysis.run.setting
    if setting("kind") == Arm.WEIGHT_PROGRAMMING:
        size = setting("programming", "size")
        what = [("task", f"program a {size} x {size} matrix by training")]
        epochs = setting("programming", "epochs")
    else:
        what = _task(run)
        epochs = setting("finetune", "epochs")
    swept = "analog.algorithm" in analysis.axes
    facts = [
        *what,
        ("algorithm", None if swept else setting("analog", "algorithm")),
        ("device", setting("analog", "device", "preset")),
        ("epochs", epochs),
        ("seeds", run.trials["seed"].nunique()),
        ("trials done", len(summaries.done(run.trials))),
    ]
    return [(term, str(value)) for term, value in facts if value not in (None, "")]


def _task(run: RunData) -> list[tuple[str, Any]]:
    classes = run.setting("finetune", "classes")
    if isinstance(classes, list):
        classes = ", ".join(str(c) for c in classes)
    elif isinstance(classes, int):
        classes = f"first {classes} classes"
    pretrained = run.setting("pretrain", "dataset")
    if pretrained and run.pretrained is not None:
        pretrained = f"{pretrained}, {run.pretrained:.1f} % test error"
    task = (run.setting("finetune", "dataset"), classes)
    return [
        ("task", ": ".join(str(p) for p in task if p)),
        ("model", run.setting("model", "architecture")),
        ("pretrained on", pretrained),
    ]


def _again(sections: Sequence[Section], where: Sequence[Path]) -> str:
    """The commands of these runs, then the one of this report."""
    lines = []
    for section in sections:
        argv = section.run.run.provenance.get("argv")
        if isinstance(argv, list) and argv:
            words = [str(word) for word in argv]
            words[0] = "analogtl"  # not the path that it had there
            lines.append(shlex.join(words))
        else:
            lines.append(f"# {section.run.run.name}: its command is not recorded")
    lines.append(shlex.join(["analogtl", "report", *(str(place) for place in where)]))
    return "\n".join(dict.fromkeys(lines))
