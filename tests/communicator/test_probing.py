"""Taking messages out, and PROC_NULL, keep their contract on every transport."""

from __future__ import annotations

import pytest
from contracts.probing import ProbingContract

from klyng_mp import native


class TestByMemory(ProbingContract):
    transport = "memory"


class TestByStream(ProbingContract):
    transport = "stream"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
class TestByShm(ProbingContract):
    transport = "shm"
