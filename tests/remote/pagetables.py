"""The tables of docs/protocol.md, made from the code; run as a program, it brings them up to date on the page.

``python tests/remote/pagetables.py`` keeps the last column, which people write; what is new there has none yet.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from klyng_mp.remote import records  # it fills `RECORDS`
from klyng_mp.remote.protocol import KINDS, RECORDS
from klyng_mp.remote.schema import Choice, Flag, Integer, Items, Maybe, Octets, Record, Table, Text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
PARTS = re.compile(r"(<!-- (\w+): made by tests/remote/pagetables.py -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)
ROW = re.compile(r"^\| (?:\d+ \| )?`(\w+)` \|.*\| (.*?) ?\|$", re.MULTILINE)
WIDTH = 116

assert records.MAX_RANKS  # it is imported for what it does


def say_type(of):
    """Return a field's type in the page's notation."""
    if isinstance(of, Maybe):
        return say_type(of.of)
    if isinstance(of, Integer):
        return f"{of.low}..{of.high}"
    if isinstance(of, Flag):
        return "flag"
    if isinstance(of, Text):
        lines = of._unprintable.search("\n") is None
        return f"text {of.limit_bytes}{' lines' * lines}"
    if isinstance(of, Octets):
        return f"bytes {of.low}" if of.low == of.high else f"bytes {of.low}..{of.high}"
    if isinstance(of, Choice):
        return "|".join(of.words)
    if isinstance(of, Items):
        return f"list {of.limit} of {say_type(of.of)}"
    if isinstance(of, Table):
        return f"table {of.limit} of {'maybe ' * isinstance(of.of, Maybe)}{say_type(of.of)}"
    assert isinstance(of, Record), of
    return "{" + say_fields(of) + "}"


def say_fields(record):
    return ", ".join(f"{name}{'?' * isinstance(of, Maybe)}: {say_type(of)}" for name, of in record.fields.items())


def say_all(rows):
    """Return the fields of all rows, a paragraph each."""
    width = max(map(len, rows)) + 2
    lines = []
    for name, row in rows.items():
        said = say_fields(row.fields) or "-"
        lines += textwrap.wrap(
            said, WIDTH, initial_indent=name.ljust(width), subsequent_indent=" " * width, break_on_hyphens=False
        )
    return "\n".join(["```text", *lines, "```"]) + "\n"


def say_moves(moves):
    """Return in which states something is sent, and what follows."""
    kept = [state for state, after in moves.items() if after == state]
    changed = [f"{state} → {after}" for state, after in moves.items() if after != state]
    return ", ".join(changed + kept)


def kinds(meanings):
    lines = ["| number | kind | from | in the state (→ the next one) | JSON | data | what it is |", "|" + "---|" * 7]
    for name, row in KINDS.items():
        lines.append(
            f"| {row.number} | `{name}` | {row.sender} | {say_moves(row.moves)} | {row.json_limit} | {row.data_limit} "
            f"| {meanings.get(name, '')} |"
        )
    return "\n".join(lines) + "\n"


def words(meanings):
    lines = ["| record | from | data | what it says |", "|" + "---|" * 4]
    for name, row in RECORDS.items():
        lines.append(f"| `{name}` | {row.sender} | {row.data_limit} | {meanings.get(name, '')} |")
    return "\n".join(lines) + "\n"


MADE = {
    "kinds": kinds,
    "records": words,
    "kind_fields": lambda _meanings: say_all(KINDS),
    "record_fields": lambda _meanings: say_all(RECORDS),
}


def update(text):
    """Return the page's text with its tables as the code has them now."""
    return PARTS.sub(lambda part: part[1] + MADE[part[2]](dict(ROW.findall(part[3]))) + part[4], text)


if __name__ == "__main__":
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
