"""``analogtl explain``."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from analogtl.cli import complete, output
from analogtl.errors import ExperimentError

EXAMPLES = (
    ("analogtl explain", "what there is to read"),
    ("analogtl explain keys", "every key of an experiment file"),
    ("analogtl explain keys | grep granularity", "plain Markdown in a pipe"),
)
WIDEST = 100  # columns; longer lines are hard to read


def titles() -> dict[str, str]:
    """Topic -> the title of its page."""
    found = {}
    for page in resources.files("analogtl").joinpath("explain").iterdir():
        name, dot, suffix = page.name.rpartition(".")
        if dot and suffix == "md":
            first = page.read_text(encoding="utf-8").partition("\n")[0]
            found[name] = first.lstrip("# ").strip()
    return dict(sorted(found.items()))


def command(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="The page to read; without it: what there is.",
            autocompletion=complete.topics,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Read about the method, the settings and the commands.

    On a terminal the page is laid out; in a pipe it is plain Markdown.
    """
    known = titles()
    if topic is None:
        rows = [(f"analogtl explain {name}", title) for name, title in known.items()]
        output.rows_table((), rows, styles={1: "dim"})
        return
    if topic not in known:
        from difflib import get_close_matches

        near = get_close_matches(topic, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"topics: {', '.join(known)}"
        raise ExperimentError(f"analogtl explain: no topic {topic!r}; {hint}")
    page = resources.files("analogtl").joinpath("explain", f"{topic}.md")
    text = page.read_text(encoding="utf-8")
    console = output.console()
    if not console.is_terminal:
        output.say(text.rstrip())
        return
    from rich.markdown import Markdown

    console.print(Markdown(text), width=min(console.width, WIDEST))
