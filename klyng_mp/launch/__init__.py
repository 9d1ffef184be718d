"""How a rank comes to life, is watched, and ends.

Layer: launch.
"""
