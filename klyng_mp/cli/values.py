"""What the values of options mean: each is read from its text, or refused in one line.

Layer: cli.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from klyng_mp.launch.heatmap import NEEDS_MATPLOTLIB, can_draw
from klyng_mp.launch.outfile import explain_unwritable

if TYPE_CHECKING:
    import argparse

__all__ = [
    "read_file",
    "read_picture",
    "read_seed",
    "read_size",
    "read_timeout",
    "read_whole",
]


def read_size(parser: argparse.ArgumentParser, text: str) -> int:
    """Return a number of ranks."""
    try:
        size = int(text)
    except ValueError:
        parser.error(f"-n needs a whole number of ranks, not {text!r}: for example -n 4")
    if size < 1:
        parser.error(f"-n {size} is too small: a program needs at least 1 rank")
    return size


def read_timeout(parser: argparse.ArgumentParser, text: str) -> float:
    """Return seconds."""
    try:
        seconds = float(text)
    except ValueError:
        parser.error(f"--timeout needs a number of seconds, not {text!r}: for example --timeout 2.5")
    if math.isnan(seconds) or seconds < 0:
        parser.error(f"--timeout {text} is no span of time: give the seconds after which to end, or leave it out")
    return seconds


def read_picture(parser: argparse.ArgumentParser, path: str | None) -> str | None:
    """Return the name of a file for a picture."""
    if path is not None and not can_draw():
        parser.error(f"--stats-png: {NEEDS_MATPLOTLIB}")
    return read_file(parser, "--stats-png", path)


def read_file(parser: argparse.ArgumentParser, flag: str, path: str | None) -> str | None:
    """Return the name of a file that can be written."""
    if path is not None and (reason := explain_unwritable(path)) is not None:
        parser.error(f"{flag} {path} {reason}" if path else f"{flag} needs the name of a file")
    return path


def read_seed(parser: argparse.ArgumentParser, text: str) -> int:
    """Return any whole number."""
    try:
        return int(text)
    except ValueError:
        parser.error(f"--seed needs a whole number, not {text!r}: for example --seed 42")


def read_whole(parser: argparse.ArgumentParser, flag: str, text: str, least: int = 0) -> int:
    """Return a whole number that is not less than another."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        parser.error(f"{flag} needs a whole number from {least}, not {text!r}")
    return number
