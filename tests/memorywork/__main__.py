"""Runs one scenario, in a process of its own: what is looked for may crash."""

from __future__ import annotations

import faulthandler
import sys

from memorywork import locks, matching, ports, queues, shortway  # noqa: F401 - they register their scenarios
from memorywork.driver import run

faulthandler.enable()
run(sys.argv[1])
print("done")
