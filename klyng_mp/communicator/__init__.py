"""The communicator: a group of ranks and a private context for their messages.

Layer: communicator; stands on the transports' contract, knows no socket.
"""

from __future__ import annotations

__all__: list[str] = []
