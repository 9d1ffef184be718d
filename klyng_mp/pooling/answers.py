"""What a worker's answer to a task says: a result, or an error with the worker's traceback.

Layer: pooling; imports tasks.

Invariants: every answer becomes a result or an exception, whatever has happened to it: nobody waits for what arrived.
"""

from __future__ import annotations

import multiprocessing.pool as standard
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.tasks import CANNOT_TRAVEL, FAILURE, unpack_failure, unpack_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.wire.codec import Codec

__all__ = ["MaybeEncodingError", "RemoteTraceback", "read_answer"]

_Standard: Any = standard.MaybeEncodingError  # type: ignore[attr-defined]


class MaybeEncodingError(_Standard):  # type: ignore[misc]  # the stubs do not have it
    """A result, or an exception, that cannot travel back to the parent.

    Attributes:
        exc: why, as text.
        value: what, as text.
        path: where in it the culprit sits (``"the result[3].lock"``), or ``""``.
    """

    def __init__(self, exc: Any, value: Any, path: str = "") -> None:
        super().__init__(exc, value)
        self.path = path

    @classmethod
    def of_texts(cls, exc: str, value: str, path: str) -> MaybeEncodingError:
        """Return the error of a worker, where both were made texts of."""
        error = cls(None, None, path)
        error.exc, error.value = exc, value
        error.args = exc, value
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return MaybeEncodingError.of_texts, (self.exc, self.value, self.path)


def read_answer(code: int, head: bytes, buffers: Sequence[Any], codec: Codec) -> tuple[bool, Any]:
    """Return whether a task succeeded, and its result or exception."""
    try:
        if code == CANNOT_TRAVEL:
            return False, MaybeEncodingError.of_texts(*unpack_refusal(head))
        if not code & FAILURE:
            return True, codec.decode(code, head, buffers)
    except Exception as error:  # noqa: BLE001 - it is the answer
        return False, error
    text, payload = unpack_failure(head)
    cause = RemoteTraceback(f'\n"""\n{text}"""')
    try:
        answer = codec.decode(code & ~FAILURE, payload, buffers)
    except Exception as failure:  # noqa: BLE001 - it is the answer
        answer = failure
    if not isinstance(answer, BaseException):
        answer = TypeError(f"an exception was rebuilt as {type(answer).__name__}")
    answer.__cause__ = cause
    return False, answer
