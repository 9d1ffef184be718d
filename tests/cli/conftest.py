"""What the tests of commands have: beacons, where other machines are wanted."""

from __future__ import annotations

from beacons import beacons, client_home, hosts

__all__ = ["beacons", "client_home", "hosts"]
