"""The errors that analogtl raises on purpose.

Everything a user can cause ends in one of these two, so the command line can turn it into a clear
line and an exit code, and everything else is a bug.
"""

from __future__ import annotations

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
        self.problems = list(map(_one_line, [problems] if isinstance(problems, str) else problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ExperimentError], tuple[list[str]]]:
        # An error crosses process boundaries in a sweep: it must survive pickling.
        return type(self), (self.problems,)


def _one_line(text: str) -> str:
    # A key or a file name may hold anything: line breaks, or codes that a terminal would obey.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class RunError(AnalogtlError):
    """A run failed although its experiment is valid (exit code 1)."""

    exit_code = 1
