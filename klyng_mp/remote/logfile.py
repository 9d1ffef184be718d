"""The file that a beacon logs to: bounded in size, for its owner alone, and found again where it was moved.

Layer: remote; one thread.

Nothing that is wrong with the file ends the beacon: what cannot be written is lost, standard error is told once, and
the next record tries anew.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import TextIOWrapper

__all__ = ["LogFile", "log_to"]

LOGGER = "klyng_mp.beacon"
_FORM = "%(asctime)s %(levelname)s %(message)s"


class LogFile(RotatingFileHandler):
    """A file that is begun anew when it is full; older ones end in ``.1``, ``.2`` and so on.

    One that somebody has moved or removed, as logrotate does, is left to them: the next record goes into a new one.

    Args:
        path: the file; made if it is not there.
        limit_bytes: how large it may be.
        older: how many older ones are kept, 1 or more.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, limit_bytes: int, older: int) -> None:
        super().__init__(path, maxBytes=limit_bytes, backupCount=older, encoding="utf-8", errors="backslashreplace")
        self._failing = False  # the last record could not be written, and standard error knows
        self._failed = False  # the same of this one

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        file = open(fd, "a", encoding=self.encoding, errors=self.errors)  # noqa: SIM115 - closed with the handler
        os.fchmod(fd, 0o600)  # whoever has moved the old one may have made this one
        return file

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, into the file that has the name now."""
        self._failed = False
        if self.stream is not None and not self._has_name(self.stream):
            self.reopen()
        super().emit(record)
        self._failing = self._failed

    def reopen(self) -> None:
        """Let go of the file; the next record opens the one that has its name then."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):  # what was not written could not be: that was told
                stream.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Take note that a record could not be written; the file may be broken, so it is opened anew."""
        del record
        self._failed = True
        error = sys.exc_info()[1]
        self.reopen()
        if not self._failing and sys.stderr is not None:
            with suppress(OSError):
                print(f"klyng-mp: the log {self.baseFilename} cannot be written: {error}; make room", file=sys.stderr)

    def _has_name(self, file: TextIOWrapper) -> bool:
        """Tell whether a file is the one that has the name now."""
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(file.fileno()))
        except OSError:
            return False


def log_to(file: LogFile) -> None:
    """Have all that a beacon has to tell written into a file; where standard error is a terminal, there as well."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers: list[logging.Handler] = [file]
    if sys.stderr is not None and sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORM))
        logger.addHandler(handler)
