"""What travels: objects as bytes, bytes as frames, and messages that are matched.

Layer: wire; no sockets, no clocks.
"""

from __future__ import annotations

__all__: list[str] = []
