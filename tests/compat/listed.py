"""What docs/compatibility.md lists, and how much that may be."""

from __future__ import annotations

import re

from . import suite

PAGE = suite.REPOSITORY / "docs" / "compatibility.md"
BARE = ", without the core"  # behind the methods of a test that passes with it
ROW = re.compile(
    rf"^\| `(?P<test>\w+\.\w+)` \| (?P<methods>[a-z, ]+?)(?P<bare>{BARE})? \| (?P<reason>.+) \|$", re.MULTILINE
)


# So many are listed for each start method. It may only fall: what once passed is not to be listed again.
MOST = {"fork": 5, "spawn": 6, "forkserver": 5}

UNLISTED = "fails, and is not in docs/compatibility.md"
NEEDLESS = "is listed in docs/compatibility.md, but passes (or is no test): take it out"


def read_page(text: str, *, core: bool = True) -> dict[str, dict[str, str]]:
    """Return the reasons by start method and test, from the page's table, with or without the C core."""
    listed: dict[str, dict[str, str]] = {method: {} for method in suite.METHODS}
    for row in ROW.finditer(text):
        if row["bare"] and core:
            continue
        methods = suite.METHODS if row["methods"] == "all" else row["methods"].split(", ")
        for method in methods:
            listed[method][row["test"]] = row["reason"]
    return listed


def judge(expected: set[str], passed: set[str], listed: dict[str, str]) -> dict[str, list[str]]:
    """Compare what passes for the standard library, and for ours, with what is listed."""
    failed = expected - passed
    return {
        UNLISTED: sorted(failed - set(listed)),
        NEEDLESS: sorted(set(listed) - failed),
    }
