"""Connections between threads; multiprocessing.dummy.connection's names.

Layer: dummy. They are the standard module's: nothing is pickled between threads.
"""

from __future__ import annotations

from multiprocessing.dummy.connection import Client, Connection, Listener, Pipe, families

__all__ = ["Client", "Connection", "Listener", "Pipe", "families"]
