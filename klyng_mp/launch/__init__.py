"""How a rank comes to life, is watched, and ends.

Layer: launch.
"""

__all__: list[str] = []
