"""What the tests of other machines have: a network of hosts, where one can be made."""

from __future__ import annotations

import subprocess

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


@pytest.fixture
def small_disk(tmp_path, request):
    """Give a folder on a file system of its own, of 64 KiB if the test does not say how many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = getattr(request, "param", 65536)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # also where a process of a test that fails has not ended
