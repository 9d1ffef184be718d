"""How a rank comes to life, is watched, and ends.

Layer: launch.
"""

from __future__ import annotations

__all__: list[str] = []
