"""Words for people."""

from __future__ import annotations


def counted(count: int, singular: str, plural: str = "") -> str:
    """A number and what it counts: ``1 trial``, ``2 trials``, ``1 entry``, ``2 entries``."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
