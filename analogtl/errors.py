"""The errors that analogtl raises on purpose, and the words that their messages share.

Everything a user can cause ends in one of these two, so the command line can turn it into a clear
line and an exit code, and everything else is a bug.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable


class AnalogtlError(Exception):
    """Base of every error that analogtl raises on purpose."""

    exit_code = 1


class ExperimentError(AnalogtlError):
    """The experiment, the data or the command line is wrong (exit code 2).

    Attributes:
        problems: One line per problem; each names the place and what was expected.
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = list(map(printable, [problems] if isinstance(problems, str) else problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ExperimentError], tuple[list[str]]]:
        # An error crosses process boundaries in a sweep: it must survive pickling.
        return type(self), (self.problems,)


class RunError(AnalogtlError):
    """A run failed although its experiment is valid (exit code 1)."""

    exit_code = 1


def printable(text: str, keep: str = "") -> str:
    """Text in which whatever is no visible character, except those to keep, is its escape.

    A key, a file name or a message may hold anything: line breaks, codes that a terminal would
    obey, marks that turn the direction of the text, bytes that are no text at all.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def shell_command(words: Iterable[str]) -> str:
    """Words as one line that a shell (bash, zsh, ksh) takes apart into the same words again."""
    return " ".join(
        shlex.quote(word)
        if word.isprintable()
        else "$'" + "".join(map(_shell_escape, word)) + "'"  # ANSI-C quoting
        for word in words
    )


def _shell_escape(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # Always three digits, which what follows cannot lengthen.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def one_line(error: BaseException) -> str:
    """An error's message in a line of at most 500 characters; an unexpected one names its class."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    expected = isinstance(error, AnalogtlError)
    return (text if expected else f"{type(error).__name__}: {text}")[:500]


def duration(seconds: float) -> str:
    """Seconds as people say them: ``4.8 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    place = next(i for i, (size, _) in enumerate(units) if whole >= size)
    (big, big_name), (small, small_name) = units[place], units[place + 1]
    rest = whole % big // small
    return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint at the end of a problem: the nearest known word, or what there is."""
    known = [str(one) for one in known]
    if not known:
        return ""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if len(word) > 2 and not near:  # a part of a name
        near = [one for one in known if word.lower() in one.lower()]
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known)}" if len(known) <= 24 else ""


def check_known(what: str, words: Iterable[str], known: Iterable[str]) -> None:
    """Check names that a caller gives: columns, axes, arms.

    Raises:
        ExperimentError: One line for each that is not known, with the nearest that is.
    """
    names = [str(one) for one in known]
    unknown = [str(word) for word in words if str(word) not in names]
    if unknown:
        hints = ((word, did_you_mean(word, names)) for word in unknown)
        raise ExperimentError([f"{what} {w!r}: unknown; {h}".rstrip("; ") for w, h in hints])


def counted(count: int, singular: str, plural: str = "") -> str:
    """A number and what it counts: ``1 trial``, ``2 trials``, ``1 entry``, ``2 entries``."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
