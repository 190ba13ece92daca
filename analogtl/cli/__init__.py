"""The command line: one file per command, which parses and prints and does nothing else.

Exit codes: 0 done; 1 a run failed; 2 the experiment or the command line is wrong; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from analogtl import __version__
from analogtl.cli import (
    convert,
    doctor,
    explain,
    finetune,
    init,
    list,
    output,
    pretrain,
    report,
    runs,
    selftest,
    show,
    sweep,
    validate,
)
from analogtl.cli.common import Interrupted, interruptible
from analogtl.errors import AnalogtlError, ExperimentError

DEBUG = "ANALOGTL_DEBUG"
UsageError: Any = typer.BadParameter.__base__  # of the click that typer brings or uses

Example = tuple[str, str]  # a command, and what it does


def _print_section(title: str, entries: Sequence[Example]) -> None:
    from rich.text import Text

    if not entries:
        return
    out = output.console()
    out.print(Text(f" {title}", style="bold"))
    for typed, meaning in entries:
        out.print(Text(f"   {typed}", style="cyan"), soft_wrap=True)
        out.print(Text(f"       {meaning}", style="dim"), soft_wrap=True)


class _Command(TyperCommand):
    """A command whose help ends with examples, after sections of its own."""

    examples: Sequence[Example] = ()
    sections: Mapping[str, Sequence[Example]] = {}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        for title, entries in self.sections.items():
            _print_section(title, entries)
        _print_section("Examples", self.examples)


class _Group(TyperGroup):
    """A group of commands whose help ends with examples."""

    examples: Sequence[Example] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        _print_section("Examples", self.examples)


def _help(function: Callable[..., Any]) -> str:
    """A docstring as help: its lines joined to paragraphs, as wide as the terminal allows."""
    # A bracket would be read as markup.
    paragraphs = (function.__doc__ or "").replace("[", r"\[").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _with(kind: Any, examples: Sequence[Example], **more: Any) -> Any:
    return type(kind.__name__, (kind,), {"examples": tuple(examples), **more})


SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
STUDY = "A study, in this order"
AROUND = "Around it"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"analogtl {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Analog transfer learning on simulated resistive crossbars, from one TOML file.

    A network is pretrained digitally, programmed onto simulated arrays, and fine-tuned there.
    """
    if ctx.invoked_subcommand is None:
        ctx.get_help()  # prints


app = typer.Typer(
    cls=_with(
        _Group,
        [
            ("analogtl finetune", "run the bundled quickstart: all arms on digits, a minute"),
            ("analogtl report", "make its tables, figures and HTML page"),
            ("analogtl init", "write an experiment of your own, exp.toml"),
            ("analogtl sweep --param spv", "test error against symmetry point variability"),
            ("analogtl explain", "what there is to read"),
        ],
    ),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    help=_help(_root),
)
app.callback(invoke_without_command=True)(_root)


def _add(name: str, module: Any, panel: str) -> None:
    app.command(
        name,
        cls=_with(_Command, module.EXAMPLES, sections=getattr(module, "SECTIONS", {})),
        help=_help(module.command),
        rich_help_panel=panel,
        context_settings=SETTINGS,
    )(interruptible(module.command))


for _name, _module in (
    ("pretrain", pretrain),
    ("convert", convert),
    ("finetune", finetune),
    ("sweep", sweep),
    ("report", report),
):
    _add(_name, _module, STUDY)
for _name, _module in (
    ("init", init),
    ("validate", validate),
    ("list", list),
    ("show", show),
    ("explain", explain),
):
    _add(_name, _module, AROUND)

_runs = typer.Typer(
    cls=_with(_Group, runs.EXAMPLES),
    rich_markup_mode="rich",
    context_settings=SETTINGS,
    help=_help(runs.command),
)
_runs.callback(invoke_without_command=True)(interruptible(runs.command))
for _name, _function in runs.COMMANDS.items():
    _runs.command(
        _name,
        cls=_with(_Command, runs.EXAMPLES_OF[_name]),
        help=_help(_function),
        context_settings=SETTINGS,
    )(interruptible(_function))
app.add_typer(_runs, name="runs", rich_help_panel=AROUND)

_add("doctor", doctor, AROUND)
_add("selftest", selftest, AROUND)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding that lacks a character is no error
            stream.reconfigure(errors="replace")
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code. Whatever goes wrong ends as a line, not a trace."""
    command = typer.main.get_command(app)
    arguments = None if argv is None else [*argv]
    try:
        code = command.main(args=arguments, prog_name="analogtl", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UsageError as error:
        output.problem(_usage(error))
        return 2
    except typer.Abort:
        output.problem("stopped")
        return 130
    except Interrupted as stop:
        output.note(str(stop))
        return 130
    except KeyboardInterrupt:
        output.note("interrupted")
        return 130
    except SystemExit as stop:
        # click's answer to a closed pipe
        closed = type(sys.stdout).__name__ == "PacifyFlushWrapper"
        return 141 if closed else stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        # Who read our output has seen enough. Python must not flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()
    if isinstance(error, ExperimentError):
        for line in error.problems:
            output.problem(line)
        return error.exit_code
    from analogtl.doctor import is_mismatch

    if is_mismatch(error):
        output.problem(
            "torch and aihwkit do not fit together on this machine: `analogtl doctor` says why "
            "and what to install"
        )
        return 1
    if isinstance(error, AnalogtlError):
        output.problem(str(error))
        return error.exit_code
    if isinstance(error, MemoryError):
        output.problem("out of memory: take fewer --jobs, a smaller model or a smaller batch")
        return 1
    text = " ".join(str(error).split())[:300]
    output.problem(
        f"internal error: {type(error).__name__}: {text} (a bug: {DEBUG}=1 shows where; "
        "please report it)"
    )
    return 1


def _usage(error: Any) -> str:
    """One line for a wrong command line: what is wrong, the nearest right word, where to look."""
    path = error.ctx.command_path if error.ctx is not None else "analogtl"
    message = error.format_message().rstrip(".")
    name = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if name is not None and hasattr(error, "possibilities"):
        message = f"no such option {name}"
        if near:
            message += f"; did you mean {' or '.join(near)}?"
    message = message[:1].lower() + message[1:]
    end = "" if message.endswith("?") else ";"
    return f"{path}: {message}{end} `{path} --help` shows what there is"
