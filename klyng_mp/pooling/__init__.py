"""What a Pool is made of: tasks in batches, workers, and who waits for whom.

Layer: pooling; above process and reduction, below pool.
"""

from __future__ import annotations

__all__: list[str] = []
