"""Ranks that take turns in one process, as greenlets: ten thousand of them on a laptop, or four in a debugger.

Layer: above launch, of which a `GreenJob` is one more kind of job; a World makes it.
"""

from __future__ import annotations

__all__: list[str] = []
