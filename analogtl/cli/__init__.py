"""The command line: it parses and prints, and does nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    from analogtl.cli.app import run

    sys.exit(run(argv))
