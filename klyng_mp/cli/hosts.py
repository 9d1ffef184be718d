"""``klyng-mp hosts``: a look at every host of a machines file.

Layer: cli.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from klyng_mp.cli.hosts_look import look_at, render
from klyng_mp.cli.hosts_watch import watch
from klyng_mp.errors import MachinesError
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import read_hosts

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]


def main(options: argparse.Namespace) -> int:
    """Print what hosts are like; return the exit code.

    Raises:
        MachinesError: they are not named as they should be.
    """
    if (options.machines is None) == (not options.hosts):
        raise MachinesError("name the hosts: klyng-mp hosts -m machines.json, or klyng-mp hosts HOST ...")
    hosts = read_hosts(options.machines if options.machines is not None else options.hosts)
    home = Home()
    if options.watch is not None:
        return watch(hosts, home, options.watch, as_json=options.json)
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as threads:
        found = list(threads.map(lambda host: look_at(host, home), hosts))
    print(json.dumps(found, indent=2) if options.json else render(found))
    return 1 if any(one["error"] for one in found) else 0
