"""Fixtures of this room."""

from beacons import beacons, client_home, hosts

__all__ = ["beacons", "client_home", "hosts"]
