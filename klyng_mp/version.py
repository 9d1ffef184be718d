"""Which version of klyng_mp this is, for modules that cannot look at the facade.

Layer: leaf; imports nothing.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
