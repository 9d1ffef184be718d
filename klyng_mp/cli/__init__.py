"""The command ``klyng-mp``.

Layer: cli; gathers, does nothing.
"""

from __future__ import annotations

from klyng_mp.cli.main import main

__all__ = ["main"]
