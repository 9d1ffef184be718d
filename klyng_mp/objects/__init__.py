"""Locks, queues and values that processes on any host of a World use: states, who keeps them, and who asks.

Layer: objects; above communicator, whose endpoints carry what is said; below launch, which gives each rank a desk.

`orders` is what is said. A *state* (`semaphores`, `conditions`, `barriers`, `cells`, `stores`) takes what clients ask
for and says what is answered to whom; it knows no messages, threads or clocks. A `desk` is a process's: it asks for the
process (`asking`), keeps what lives there, and knows where queues live (`queuing`, `settling`). The classes that
programs see are in `locks`, `signals`, `values` and `far_queues`.
"""

from __future__ import annotations

__all__: list[str] = []
