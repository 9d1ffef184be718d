"""``python -m klyng_mp.beacon``: a beacon in the foreground, as ``klyng-mp beacon run``.

Layer: above cli.
"""

from __future__ import annotations

import sys

from klyng_mp.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main(["beacon", "run", *sys.argv[1:]]))
