"""What the tests of other machines have: a network of hosts, where one can be made."""

from __future__ import annotations

import networks
import pytest
from beacons import beacons, client_home, hosts

__all__ = ["beacons", "client_home", "hosts", "network"]


@pytest.fixture
def network():
    """A network without hosts: ``laptop, lab = network.add_hosts("laptop", "lab")``."""
    if (reason := networks.skip_reason()) is not None:
        pytest.skip(reason)
    with networks.Network() as made:
        yield made
