"""Other machines: beacons, the hosts of a World, and what travels to them.

Layer: above launch, which brings ranks to life on each host as it does here.
"""

from __future__ import annotations

__all__: list[str] = []
