"""Write again what is made from the code and from the published runs.

``python -m analogtl.cli.generate``, in a source checkout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

import analogtl
from analogtl.cli.app import COMPLETE, app, examples_of
from analogtl.config.reference import axes_table, keys_markdown

COMMANDS = """\
# Every command and option

`analogtl COMMAND --help` says the same on the terminal. EXP is an experiment file or the name of a
shipped experiment; without it a command takes exp.toml in the current folder, else the bundled
quickstart, and says which.

Exit codes: 0 done; 1 a run failed; 2 the experiment or the command line is wrong (one line per
problem); 130 interrupted (what was finished is kept, and the same command goes on).
`ANALOGTL_DEBUG=1` shows where an internal error comes from; `ANALOGTL_DATA` names the folder of
the data sets.
"""
MADE_BY = f"made by Typer {metadata.version('typer')}"
SCRIPTS = {"analogtl.bash": "bash", "_analogtl": "zsh", "analogtl.fish": "fish"}


def generated() -> Mapping[Path, str]:
    """Every generated file of a source checkout, and what belongs in it."""
    package = Path(analogtl.__file__).parent
    found = {
        package / "explain" / "keys.md": keys_markdown(),
        package / "explain" / "commands.md": commands_markdown(),
    }
    for name, shell in SCRIPTS.items():
        script = get_completion_script(prog_name="analogtl", complete_var=COMPLETE, shell=shell)
        # The version tells whether a difference is ours; zsh wants its own line to be the first.
        found[package.parent / "completions" / name] = f"{script}\n# {MADE_BY}\n"
    page = package / "explain" / "experiment-file.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- axes:begin -->\n")
    _, end, after = rest.partition("<!-- axes:end -->")
    found[page] = before + begin + axes_table() + end + after
    return found


def commands_markdown() -> str:
    """The page of all commands, in Markdown."""
    parts = [COMMANDS]
    for path, command in walk(typer.main.get_command(app), "analogtl"):
        parts += [f"## {path}\n", _plain(command.help) + "\n"]
        for typed, parameter in parameters(command):
            parts.append(
                f"- `{typed}`: {' '.join(_plain(parameter.help).split())}{_default(parameter)}"
            )
        parts.append("\nExamples:\n")
        parts += [f"- `{example}`: {meaning}" for example, meaning in examples_of(path)] + [""]
    return "\n".join(parts).rstrip() + "\n"


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below one, and what is typed for it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{path} {name}")


def parameters(command: Any) -> Iterator[tuple[str, Any]]:
    """The arguments and options of a command as they are typed, and the parameters."""
    for parameter in command.params:
        metavar = str(parameter.metavar or parameter.name.upper()).strip("[].")
        if parameter.param_type_name == "argument":
            yield metavar, parameter
        elif parameter.name not in ("help", "install_completion", "show_completion"):
            value = "" if getattr(parameter, "is_flag", False) else f" {metavar}"
            names = sorted([*parameter.opts, *parameter.secondary_opts], key=len, reverse=True)
            yield ", ".join(names) + value, parameter


def _plain(text: str | None) -> str:
    return (text or "").replace(r"\[", "[")


def _default(parameter: Any) -> str:
    default = parameter.default
    if default is None or default is False or callable(default) or parameter.required:
        return ""
    return f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."


def main() -> None:
    """Write the files, and the tables of the pages that show results."""
    from analogtl.report.results import rewrite

    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    package = Path(analogtl.__file__).parent
    for page in (package.parent / "README.md", package / "explain" / "results.md"):
        rewrite(page, package.parent / "experiments" / "results")
        print(page)


if __name__ == "__main__":
    main()
