"""Lines of output that begin with the rank that wrote them, where no supervisor reads what ranks print.

Layer: launch.
"""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Labelled", "labelled"]


class Labelled(io.TextIOBase):
    """A text stream that puts a label before each line, and writes whole lines only.

    Args:
        stream: where they go.
        host: the ranks' host.
        whose: says which rank writes; None for none.
    """

    def __init__(self, stream: Any, host: str, whose: Callable[[], int | None]) -> None:
        self._stream = stream
        self._host = host
        self._whose = whose
        self._begun: dict[int, str] = {}

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return str(self._stream.encoding)

    def fileno(self) -> int:
        """Return the stream's own."""
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        """Return the stream's own."""
        return bool(self._stream.isatty())

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write what is whole lines now; keep the rest for more of the same rank."""
        number = self._whose()
        if number is None:
            self._stream.write(text)
            return len(text)
        *lines, rest = (self._begun.pop(number, "") + text).split("\n")
        for line in lines:
            self._write_line(number, line)
        if rest:
            self._begun[number] = rest
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        self._stream.flush()

    def finish(self) -> None:
        """Write the lines that never ended."""
        for number in sorted(self._begun):
            self._write_line(number, self._begun[number])
        self._begun.clear()
        self._stream.flush()

    def _write_line(self, number: int, line: str) -> None:
        self._stream.write(f"[{number}@{self._host}] {line}\n")


@contextmanager
def labelled(host: str | None, whose: Callable[[], int | None]) -> Iterator[None]:
    """Have what ranks print within this block begin with their number and host, unless ``host`` is None.

    Args:
        host: theirs.
        whose: says which rank writes; None for none.
    """
    if host is None:
        yield
        return
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams = [Labelled(stream, host, whose) for stream in before]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.finish()
