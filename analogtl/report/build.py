"""The report: tables, figures and one HTML page from any number of runs, finished or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analogtl.analysis.analyse import RunAnalysis, analyse
from analogtl.analysis.curves import references
from analogtl.analysis.findings import JudgedFinding, judge_findings
from analogtl.analysis.read import RunData, find_runs, read_run, run_names
from analogtl.analysis.select_lr import finished
from analogtl.errors import ExperimentError, RunError, counted, duration, shell_command
from analogtl.files import below, write_atomically
from analogtl.report import page, run_tables, tables, words
from analogtl.report.drawing import FIGURE_FORMATS, Drawn, save_all
from analogtl.report.sections import Section, section_of, slug
from analogtl.report.tables import Table
from analogtl.report.together import differences, joined
from analogtl.vocabulary import Arm

FORMATS = ("html", "markdown", "csv", "latex", *FIGURE_FORMATS)
DEFAULT_FORMATS = ("html", "markdown", "csv", "png", "svg")
MAX_LATEX_ROWS = 60  # about a page; longer tables are data, and the CSV files have them
MAX_TRIALS_LISTED = 3000  # on the HTML page; trials.csv has them all


def build_report(
    run_dirs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    formats: Iterable[str] = DEFAULT_FORMATS,
    margin: float | None = None,
    alpha: float | None = None,
    judged_epochs: int | None = None,
    settings: Sequence[str] = (),
    together: bool = False,
    plain: bool = False,
) -> Report:
    """Make the report of one or more runs.

    Args:
        run_dirs: Run directories, or folders with run directories anywhere below them.
        out: Folder to write to; by default ``report/`` in the run, or in the folder of runs.
        formats: Any of `FORMATS`. ``html``: one self-contained page; ``markdown``: one document
            with the tables and figures; ``csv``: every table with all its digits; ``latex``:
            booktabs tables and PDF figures; ``png``, ``svg``, ``pdf``: the figures.
        margin: What counts as harmless, in the metric's unit, for the certified level; by
            default each experiment's own.
        alpha: Significance level of the critical point's tests; by default each experiment's own.
        judged_epochs: How many of the last epochs of a training the judged error is the mean of; by
            default each experiment's own.
        settings: ``hardware.key=value`` over the experiments' own, for the costs.
        together: Whether the runs share figures and tables, as if the run were an axis.
        plain: Whether figures are drawn without the critical points.

    Returns:
        The paths written, the tables, and messages on what is missing.

    Raises:
        ExperimentError: No run there, an unknown format, a bad margin, alpha or number of epochs,
            costs asked for by settings without the counts that they need, or runs together that
            are judged by different metrics.
        RunError: None of the runs can be read, or the report cannot be written.
    """
    kinds = _checked(formats, margin, alpha, judged_epochs)
    where = [Path(place) for place in run_dirs]
    paths = find_runs(where)
    runs, damaged = _read(paths, judged_epochs, settings)
    damaged += [line for run in runs for line in run.unreadable]
    messages = list(damaged)
    for run in runs:
        messages += [*run.notes, *_progress(run)]
    beside = references(run.chosen for run in runs)
    analyses = [analyse(run, margin=margin, alpha=alpha, beside=beside) for run in runs]
    judged = judge_findings(analyses)
    for one in (curve for analysis in analyses for curve in analysis.curves):
        if failed := words.failed_reference(one):
            messages.append(f"{one.curve.experiment}: {words.curve_name(one.curve)}: {failed}")
    if together and len(runs) > 1:
        analyses = [analyse(joined(runs), margin=margin, alpha=alpha)]
    report = Report(
        out=Path(out) if out is not None else _default_out(where, paths),
        kinds=kinds,
        runs=runs,
        sections=[section_of(analysis, plain=plain) for analysis in analyses],
        findings=judged if any(one.experiment for one in judged) else [],
        messages=messages,
        damaged=damaged,
    )
    report.write(where)
    return report


def _checked(
    formats: Iterable[str], margin: float | None, alpha: float | None, judged_epochs: int | None
) -> list[str]:
    kinds = list(dict.fromkeys(formats))
    problems = [
        f"format {kind!r}: unknown; expected {', '.join(FORMATS)}"
        for kind in kinds
        if kind not in FORMATS
    ]
    if margin is not None and not margin > 0:
        problems.append(f"margin {margin:g}: expected a number above 0")
    if alpha is not None and not 0 < alpha < 0.5:
        problems.append(f"alpha {alpha:g}: expected a number between 0 and 0.5")
    if judged_epochs is not None and judged_epochs < 1:
        problems.append(f"judged epochs {judged_epochs}: expected 1 or more")
    if not kinds:
        problems.append(f"no format given; expected {', '.join(FORMATS)}")
    if problems:
        raise ExperimentError(problems)
    return kinds


def _read(
    paths: Sequence[Path], judged_epochs: int | None, settings: Sequence[str]
) -> tuple[list[RunData], list[str]]:
    runs: list[RunData] = []
    messages = []
    for path, name in zip(paths, run_names(paths), strict=True):
        try:
            runs.append(read_run(path, name, judged_epochs, settings))
        except RunError as error:
            messages.append(f"left out: {error}")
    if not runs:
        raise RunError("\n".join(messages))
    if settings and all(run.work.empty for run in runs):
        lines = [note for run in runs for note in run.notes if ": no costs" in note]
        raise ExperimentError(lines or ["no costs: --set gives no constant of hardware"])
    return runs, messages


def _default_out(where: Sequence[Path], paths: Sequence[Path]) -> Path:
    if len(paths) == 1:
        return below(paths[0], "report")
    return below(where[0] if len(where) == 1 else where[0].parent, "report")


def _progress(run: RunData) -> list[str]:
    """What is missing of one run, in a line; nothing if it is complete."""
    unfinished = run.unfinished()
    failed = int((unfinished["state"] == "failed").sum())
    missing = int((unfinished["state"] == "missing").sum())
    n_done = int(finished(run.trials).sum())
    if not len(run.trials) and run.planned is None:
        return [f"{run.name}: no trial has finished"]
    if not failed and not missing:
        return []
    parts = [f"{n_done} of {n_done + len(unfinished)} trials done"]
    if failed:
        parts.append(f"{failed} failed")
    if missing:
        parts.append(f"{missing} missing")
    return [f"{run.name}: {', '.join(parts)}"]


# ------------------------------------------------------------------------------------- writing


@dataclass
class Report:
    """A report: what it tells, and the files that it was written to, each at once or not at all.

    Attributes:
        sections: What they come to, each for itself or all together.
        findings: What they say about findings.
        messages: What is missing, failed, damaged or does not belong together, a line each.
        damaged: Those of them that tell of something damaged, which was left out.
    """

    out: Path
    kinds: Sequence[str]
    runs: Sequence[RunData]
    sections: Sequence[Section]
    findings: Sequence[JudgedFinding]
    messages: Sequence[str]
    damaged: Sequence[str] = ()
    paths: list[Path] = field(default_factory=list)

    def write(self, where: Sequence[Path]) -> None:
        """Write everything."""
        shared = self.shared_tables()
        for section, folder in zip(self.sections, self.folders(), strict=True):
            self._write_tables(section.all_tables, folder)
        self._draw()
        self._write_tables(shared, Path())
        if "markdown" in self.kinds:
            self._write(Path("report.md"), self._markdown(shared))
        if "html" in self.kinds:
            self._write(Path("report.html"), self._page(shared, where))

    def folders(self) -> list[Path]:
        """The folder of each section."""
        if len(self.sections) == 1:
            return [Path()]
        return [Path(name) for name in page.unique_ids(slug(s.name) for s in self.sections)]

    def shared_tables(self) -> list[Table]:
        """Tables over all runs: findings, critical points of several runs, what is missing."""
        shared = [run_tables.findings_table(self.findings)] if self.findings else []
        curves = [curve for section in self.sections for curve in section.run.curves]
        if len(self.sections) > 1 and curves:
            shared.append(run_tables.critical_points_table(curves))
        unfinished = pd.concat([run.unfinished() for run in self.runs], ignore_index=True)
        if len(unfinished):
            shared.append(run_tables.unfinished_table(unfinished))
        return shared

    @property
    def tables(self) -> list[Table]:
        """Every table once: those over all runs in place of each run's own."""
        shared = self.shared_tables()
        names = {table.name for table in shared}
        own = [table for s in self.sections for table in s.all_tables]
        return [table for table in own if table.name not in names] + shared

    @property
    def title(self) -> str:
        """The page's heading."""
        if len(self.sections) == 1:
            return self.sections[0].name
        return f"Analog transfer learning: {len(self.sections)} experiments"

    def _write(self, name: Path, content: str) -> None:
        path = below(self.out, *name.parent.parts) / name.name
        write_atomically(path, content)
        self.paths.append(path)

    def _write_tables(self, listed: Iterable[Table], folder: Path) -> None:
        """Tables as files of their own, in the formats that have them."""
        writers: dict[str, tuple[str, Callable[[Table], str]]] = {
            "csv": ("csv", tables.to_csv),
            "latex": ("tex", tables.to_latex),
        }
        for table in listed:
            for kind, (suffix, write) in writers.items():
                fits = kind == "csv" or 0 < len(table) <= MAX_LATEX_ROWS
                if kind in self.kinds and fits:
                    self._write(folder / f"{table.name}.{suffix}", write(table))

    def _draw(self) -> None:
        """The figures of all runs, each run's in its folder."""
        formats = {kind for kind in self.kinds if kind in FIGURE_FORMATS}
        if "latex" in self.kinds:
            formats.add("pdf")
        if "markdown" in self.kinds and not formats & {"png", "svg"}:
            formats.add("png")
        wanted = [
            (spec.draw, below(self.out, *folder.parts) / spec.stem, spec.title)
            for section, folder in zip(self.sections, self.folders(), strict=True)
            for spec in section.figures
        ]
        in_page = "html" in self.kinds
        drawn: Iterable[Drawn] = []
        if formats or in_page:
            ordered = [kind for kind in FIGURE_FORMATS if kind in formats]
            drawn = save_all(wanted, ordered, page=in_page)
        rest = iter(drawn)
        for section in self.sections:
            section.drawn.extend(itertools.islice(rest, len(section.figures)))
            self.paths += [path for one in section.drawn for path in one.paths]

    # ------------------------------------------------------------------------------- documents

    def _markdown(self, shared: Sequence[Table]) -> str:
        parts = ["# " + tables.markdown_escape(self.title)]
        if self.messages:
            parts.append(
                "\n".join(f"- {tables.markdown_paragraph(line)}" for line in self.messages)
            )
        for section in self.sections:
            parts.append("## " + tables.markdown_escape(section.name))
            texts = [section.run.run.description, *section.limits, *section.words]
            parts += [tables.markdown_paragraph(text) for text in texts if text]
            parts += [tables.to_markdown(table) for table in section.tables]
            for spec, one in zip(section.figures, section.drawn, strict=True):
                relative = one.paths[0].relative_to(self.out).as_posix()
                parts.append(f"![{tables.markdown_escape(spec.title)}]({relative})")
            parts += [
                tables.to_markdown(table)
                for table in (*section.cost_tables, *section.more_tables)
                if len(table) <= MAX_LATEX_ROWS
            ]
        parts += [tables.to_markdown(table) for table in shared if len(table)]
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    def _page(self, shared: Sequence[Table], where: Sequence[Path]) -> str:
        trials = pd.concat([run.trials for run in self.runs], ignore_index=True)
        listed = len(trials) <= MAX_TRIALS_LISTED
        notices = list(self.messages)
        if not listed:
            notices.append(
                f"{len(trials)} trials are too many to list here: they are in trials.csv"
            )
        ids = page.unique_ids(f"run-{slug(section.name).lower()}" for section in self.sections)
        apart = len(self.sections) == len(self.runs)
        sections = [
            page.PageSection(
                id=name,
                section=section,
                facts=facts(section.run) if apart else differences(self.runs),
                resolved=section.run.run.experiment if apart else {},
            )
            for name, section in zip(ids, self.sections, strict=True)
        ]
        return page.render(
            title=self.title,
            glance=_glance(trials),
            notices=notices,
            runs=sections,
            tables=[table for table in shared if len(table) and table.name != "findings"],
            findings=self.findings,
            trials=run_tables.trials_table(trials) if listed and len(trials) else None,
            commands=_commands(self.runs, where, together=not apart),
            made=datetime.now(UTC).strftime("%d %B %Y"),
        )


def _plural(noun: str, number: int) -> str:
    return counted(number, noun).partition(" ")[2]


def _glance(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """The study in numbers."""
    done = trials[finished(trials)]
    seeds = sorted(set(done.groupby("experiment")["seed"].nunique())) or [0]
    arms = done["arm"].nunique()
    glance = [
        (str(len(done)), f"{_plural('trial', len(done))} done"),
        (" to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))), _plural("seed", seeds[-1])),
        (str(arms), _plural("arm", arms)),
    ]
    if hours := done["wall_s"].sum():
        glance.append((duration(float(hours)), "of training"))
    if failed := len(trials) - len(done):
        glance.insert(1, (str(failed), "failed"))
    return glance


FACTS = (
    ("task", "finetune.dataset"),
    ("classes", "finetune.classes"),
    ("objective", "objective"),
    ("model", "model.architecture"),
    ("model", "model.file"),
    ("pretrained on", "pretrain.dataset"),
    ("size of the matrix", "programming.size"),
    ("algorithm", "analog.algorithm"),
    ("device", "analog.device.preset"),
    ("device file", "analog.device.file"),
    ("epochs", "finetune.epochs"),
    ("epochs", "programming.epochs"),
)


def facts(analysis: RunAnalysis) -> list[tuple[str, str]]:
    """What the experiment is, from its settings; what it varies or does not have is left out."""
    run, settings = analysis.run, dict(page.flatten(analysis.run.experiment))
    programming = settings.get("kind") == Arm.WEIGHT_PROGRAMMING
    others = ("finetune.", "model.", "pretrain.") if programming else ("programming.",)
    if "analog.device.file" in analysis.axes:
        settings.pop("analog.device.preset", None)
    pairs = [
        (term, settings[key])
        for term, key in FACTS
        if key in settings and key not in analysis.axes and not key.startswith(others)
    ]
    if run.pretrained is not None:
        pairs.append(
            (f"{analysis.error.label} after pretraining", analysis.error.text(run.pretrained))
        )
    if sets := run.setting("sweep", "class_sets"):
        pairs = [pair for pair in pairs if pair[0] != "classes"]
        pairs.append(("class sets", str(len(sets))))
    seeds, done = run.trials["seed"].nunique(), int(finished(run.trials).sum())
    return [*pairs, ("seeds", str(seeds)), ("trials done", str(done))]


def _commands(runs: Sequence[RunData], where: Sequence[Path], *, together: bool) -> str:
    """The commands of these runs, then the one of this report."""
    lines = []
    for run in runs:
        argv = run.provenance.get("argv")
        if isinstance(argv, list) and argv:
            # Its first word is the path that the program had there.
            lines.append(shell_command(["analogtl", *(str(word) for word in argv[1:])]))
        else:
            lines.append(f"# {run.name}: its command is not recorded")
    words = ["analogtl", "report", *(str(place) for place in where)]
    lines.append(shell_command([*words, *(["--together"] if together else [])]))
    return "\n".join(dict.fromkeys(lines))
