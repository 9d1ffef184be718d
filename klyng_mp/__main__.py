"""``python -m klyng_mp``: the command ``klyng-mp``.

Layer: cli; one call.
"""

from __future__ import annotations

import sys

from klyng_mp.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
