"""Messages whose sender wants to know keep their contract on every transport."""

from __future__ import annotations

import pytest
from contracts.synchronous import SynchronousContract

from klyng_mp import native


class TestByMemory(SynchronousContract):
    transport = "memory"


class TestByStream(SynchronousContract):
    transport = "stream"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
class TestByShm(SynchronousContract):
    transport = "shm"
