"""Which parser each page of the manual shows.

Layer: cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.cli.beacon_parser import build_beacon_parser, build_hosts_parser
from klyng_mp.cli.parser import (
    build_bundle_parser,
    build_doctor_parser,
    build_parser,
    build_ps_parser,
    build_run_parser,
)

if TYPE_CHECKING:
    import argparse

__all__ = ["manual"]


def manual() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Return (one line about it, its parser) of each manual page, by the page's name."""
    return {
        "klyng-mp": ("run Python programs as ranks that send each other messages", build_parser()),
        "klyng-mp-run": ("run a Python program in N ranks", build_run_parser()),
        "klyng-mp-ps": ("show what ranks do, and where", build_ps_parser()),
        "klyng-mp-bundle": ("show what of a program travels to other machines", build_bundle_parser()),
        "klyng-mp-doctor": ("show what this machine offers to klyng-mp, and try it", build_doctor_parser()),
        "klyng-mp-beacon": ("let this machine run ranks for others", build_beacon_parser()),
        "klyng-mp-hosts": ("look at the machines of a machines file", build_hosts_parser()),
    }
