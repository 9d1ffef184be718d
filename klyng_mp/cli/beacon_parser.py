"""The words of ``klyng-mp beacon`` and ``klyng-mp hosts``: their parsers, which are also their manual.

Layer: cli.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from klyng_mp.cli.parser import Parser

if TYPE_CHECKING:
    import argparse

__all__ = ["build_beacon_parser", "build_hosts_parser"]

_BEACON_DESCRIPTION = """\
Let this machine run ranks for others. A beacon listens at one port, lets in who
knows its password or has a key that it was told to accept, receives the packed
program of a job over an encrypted connection, and runs its share of the ranks.

Until it is told otherwise it listens at loopback only."""

_BEACON_EPILOG = """\
files:
  ~/.klyng_mp (or what KLYNG_MP_HOME names) has beacon.toml (limits), password,
  identity.pem, authorized_clients, the log, and on the client's side
  client_key and known_beacons.

pairing, without a password in any file:
  there:  klyng-mp beacon pair             shows a code, good once
  here:   klyng-mp beacon pair HOST        asks for it, and leaves this user's
                                           key there

exit codes:
  0       it was done
  1       it could not be done, or no beacon runs; a line on stderr says why
  2       the command line is wrong

examples:
  klyng-mp beacon up --host 0.0.0.0
  klyng-mp beacon status
  klyng-mp beacon unit > ~/.config/systemd/user/klyng-mp-beacon.service
  klyng-mp beacon unit --user klyng | sudo tee \\
      /etc/systemd/system/klyng-mp-beacon.service"""

_HOSTS_DESCRIPTION = """\
Look at every host of a machines file: whether its beacon can be reached and
lets us in, its versions, how many ranks it has room for, how long a message
takes there and back, and how many bytes a second."""

_HOSTS_EPILOG = """\
exit codes:
  0       all can be used; or a watch was ended by Ctrl-C
  1       some cannot; a line below the table says why

examples:
  klyng-mp hosts -m machines.json
  klyng-mp hosts -m machines.json --watch=5
  klyng-mp hosts 10.0.0.5 lab2:2222"""


def build_beacon_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp beacon``."""
    parser = Parser("klyng-mp beacon", description=_BEACON_DESCRIPTION, epilog=_BEACON_EPILOG)
    parser.add_argument(
        "command",
        choices=("run", "up", "down", "status", "pair", "authorize", "revoke", "passwd", "unit"),
        metavar="COMMAND",
        help="run: in the foreground, until Ctrl-C. up: in the background. down: end it, and its jobs. status: its "
        "jobs, owners, ranks, ages, loads. pair: show a code for a client, or with HOST be that client. authorize: let "
        "in who has a KEY; without one show this user's. revoke: let a client (NAME or fingerprint) in no more. "
        "passwd: make a new password. unit: print a systemd unit, for this user or, with --user, for the system",
    )
    parser.add_argument("value", metavar="HOST|KEY|NAME", nargs="?", help="what the command is about")
    parser.add_argument("--host", metavar="ADDRESS", help="listen at this address; 0.0.0.0 or :: for all of them")
    parser.add_argument("--port", metavar="PORT", type=int, help="listen at this port; default: 2222")
    parser.add_argument(
        "--password-file", metavar="FILE", help="use the password in this file (run, up: from now on; passwd: likewise)"
    )
    parser.add_argument(
        "--allow-root", action="store_true", help="run as root all the same: its jobs may do everything"
    )
    parser.add_argument("--user", metavar="USER", help="started by root, be this user from the first moment on")
    parser.add_argument("--json", action="store_true", help="status: print one JSON object")
    return parser


def build_hosts_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp hosts``."""
    parser = Parser("klyng-mp hosts", description=_HOSTS_DESCRIPTION, epilog=_HOSTS_EPILOG)
    parser.add_argument("-m", "-H", "--machines", metavar="FILE", help="the machines file, JSON or TOML")
    parser.add_argument("hosts", metavar="HOST", nargs="*", help="or hosts: NAME, NAME:PORT, [IPV6]:PORT")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const=2.0,
        type=_seconds,
        help="again and again until Ctrl-C, every 2 seconds if it does not say otherwise: in place on a terminal, "
        "elsewhere as lines with their time",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON list; with --watch a line each time, of time and hosts"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400: write --watch=5, say")
    return seconds
