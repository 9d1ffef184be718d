"""What the launcher of ``World(n, engine="mpi")`` starts n times.

Layer: cluster.
"""

from __future__ import annotations

from klyng_mp.cluster.server import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
