"""A function that ranks and workers can import, for ``worlds.py``."""

from __future__ import annotations

__all__ = ["nothing"]


def nothing(*_ignored: object) -> None:
    """Do nothing; what is timed is all that happens around it."""
