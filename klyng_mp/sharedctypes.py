"""C types in shared memory.

Layer: above synchronize; multiprocessing.sharedctypes' names. The memory has no name.
"""

from __future__ import annotations

from multiprocessing.sharedctypes import Array, RawArray, RawValue, Value, copy, synchronized

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]
