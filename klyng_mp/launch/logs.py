"""Log records of ranks, handed to the logging of the driver.

Layer: launch.
"""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DriverHandler", "handle_record", "mark_records"]


def mark_records(rank: int) -> None:
    """Give every log record of this process the attribute ``rank``."""
    make = logging.getLogRecordFactory()

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.rank = rank
        return record

    logging.setLogRecordFactory(make_record)


class DriverHandler(logging.Handler):
    """Sends each record, formatted where its arguments are, to the driver."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record; what cannot be formatted is reported as logging reports it."""
        try:
            fields = dict(record.__dict__)
            fields["msg"] = record.getMessage()
            fields["args"] = None
            if record.exc_info:
                fields["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
                fields["exc_info"] = None
            plain = {name: value for name, value in fields.items() if _is_plain(value)}
            self._send(pickle.dumps(plain, protocol=5))
        except Exception:  # noqa: BLE001 - logging's own rule: a record must never fail the program
            self.handleError(record)


def _is_plain(value: object) -> bool:
    return value is None or type(value) in {str, int, float, bool}


def handle_record(data: bytes) -> None:
    """Give a rank's record to this process's loggers, as if it had been made here."""
    record = logging.makeLogRecord(pickle.loads(data))  # noqa: S301 - from a rank of this job
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
