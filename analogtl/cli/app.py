"""The commands put together: their help, and how each ends.

Exit codes: 0 done; 1 a run failed; 2 the experiment or the command line is wrong; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from analogtl.cli import (
    catalogue,
    check,
    completion,
    fit,
    output,
    report,
    runs,
    study_commands,
    write,
)
from analogtl.cli.process import Interrupted, interruptible, prepare_streams
from analogtl.errors import AnalogtlError, ExperimentError, did_you_mean
from analogtl.study.threads import use_one_thread

DEBUG = "ANALOGTL_DEBUG"
COMPLETE = "_ANALOGTL_COMPLETE"  # set by a shell that asks what to offer
UsageError: Any = typer.BadParameter.__base__  # of the click that typer brings or uses


def examples_of(path: str) -> list[tuple[str, str]]:
    """The examples of a command: what is typed, and what it does."""
    text = resources.files("analogtl.cli").joinpath("examples.txt").read_text(encoding="utf-8")
    of_all, _, of_each = text.strip().partition("\n\n")
    lines = (of_all if path == "analogtl" else of_each).splitlines()
    pairs = [re.split(r"  +", line, maxsplit=1) for line in lines]
    return [(typed, meaning) for typed, meaning in pairs if f"{typed} ".startswith(f"{path} ")]


class _Examples:
    """Help that ends with examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)  # type: ignore[misc]
        from rich.text import Text

        out = output.console()
        out.print(Text(" Examples", style="bold"))
        for typed, meaning in examples_of(ctx.command_path):
            out.print(Text(f"   {typed}", style="cyan"), soft_wrap=True)
            out.print(Text(f"       {meaning}", style="dim"), soft_wrap=True)


class _Command(_Examples, TyperCommand):
    pass


class _Group(_Examples, TyperGroup):
    pass


def _help(function: Callable[..., Any]) -> str:
    """A docstring as help: its lines joined to paragraphs, as wide as the terminal allows."""
    # A bracket would be read as markup.
    paragraphs = (function.__doc__ or "").replace("[", r"\[").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
        from analogtl.study.provenance import code_version

        print(f"analogtl {code_version()}")
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


SETTINGS = {"help_option_names": ["-h", "--help"]}


def _group(function: Callable[..., Any]) -> typer.Typer:
    made = typer.Typer(
        cls=_Group,
        help=_help(function),
        context_settings=SETTINGS,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    made.callback(invoke_without_command=True)(function)
    return made


def _add(to: typer.Typer, commands: Mapping[str, Callable[..., Any]], panel: str) -> None:
    for name, function in commands.items():
        to.command(
            name,
            cls=_Command,
            help=_help(function),
            context_settings=SETTINGS,
            rich_help_panel=panel,
        )(interruptible(function))


app, _runs = _group(_root), _group(interruptible(runs.command))
_add(app, {**study_commands.COMMANDS, "report": report.command}, "A study, in this order")
_add(app, {**write.COMMANDS, **fit.COMMANDS, **catalogue.COMMANDS}, "Around it")
_add(_runs, runs.COMMANDS, "Commands")
app.add_typer(_runs, name="runs", rich_help_panel="Around it")
_add(app, check.COMMANDS, "Around it")


# -- running a command line ------------------------------------------------------------------------


MAX_PROBLEMS = 100  # that are told
CLOSED_PIPE = 141  # as of a command that a shell ends by SIGPIPE


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code. Whatever goes wrong ends as a line, not a trace."""
    use_one_thread()
    prepare_streams()
    logging.getLogger("analogtl").addHandler(output.LOG_LINES)
    completes = bool(os.environ.get(COMPLETE))
    if completes:
        completion.prepare()
    if not _has_folder():  # libraries that are loaded end the process without a word of ours
        output.problem("the current folder was removed: change to another one")
        return 1
    command = typer.main.get_command(app)
    arguments = None if argv is None else [*argv]
    try:
        code = command.main(args=arguments, prog_name="analogtl", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stop:
        output.note(str(stop) or "interrupted")
        return 130
    except SystemExit as stop:
        # Click's and rich's answer to a closed pipe is 1; else only completion ends like this.
        code = stop.code if isinstance(stop.code, int) else 1
        return code if completes or code != 1 else CLOSED_PIPE
    except BrokenPipeError:  # who read our output has seen enough
        return CLOSED_PIPE
    except Exception as error:
        return _tell(error)


def _tell(error: Exception) -> int:
    """Print the lines of an error; return its exit code."""
    code, problems = _ending(error)
    if len(problems) > MAX_PROBLEMS:
        problems = [*problems[:MAX_PROBLEMS], f"and {len(problems) - MAX_PROBLEMS} problems more"]
    if os.environ.get(DEBUG) and not isinstance(error, UsageError):
        import traceback

        problems = [*"".join(traceback.format_exception(error)).splitlines(), *problems]
    for line in problems:
        output.problem(line)
    return code


def _ending(error: Exception) -> tuple[int, list[str]]:
    """Exit code and lines of an error."""
    from analogtl.doctor import is_mismatch

    if isinstance(error, UsageError):
        return 2, [_usage(error)]
    if isinstance(error, ExperimentError):
        return error.exit_code, error.problems
    if is_mismatch(error):
        return 1, [
            "torch and aihwkit do not fit together on this machine: `analogtl doctor` says why "
            "and what to install"
        ]
    if isinstance(error, AnalogtlError):
        return error.exit_code, [str(error)]
    if isinstance(error, MemoryError):
        return 1, ["out of memory: take fewer --jobs, a smaller model or a smaller batch"]
    if isinstance(error, OSError) and error.filename is not None:
        return 1, [f"{error.filename}: {error.strerror or error}"]
    text = " ".join(str(error).split())[:300]
    return 1, [
        f"internal error: {type(error).__name__}: {text} (a bug: {DEBUG}=1 shows where; "
        "please report it)"
    ]


def _has_folder() -> bool:
    with contextlib.suppress(OSError):
        return bool(os.getcwd())
    return False


def _usage(error: Any) -> str:
    """One line for a wrong command line: what is wrong, the nearest right word, where to look."""
    path = error.ctx.command_path if error.ctx is not None else "analogtl"
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    message = message[:1].lower() + message[1:]
    if choice := re.search("'(.*)' is not one of (.*)", message):
        known = re.findall("'([^']+)'", choice[2])
        message += f"; {did_you_mean(choice[1], known)}"
    end = "" if message.endswith("?") else ";"
    return f"{path}: {message}{end} `{path} --help` shows what there is"
