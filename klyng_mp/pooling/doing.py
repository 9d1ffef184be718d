"""How a worker does what its bench leaves to it: a task, or the answer that a task has come to.

Layer: pooling; imports tasks.

Invariants: whatever a task raises, or returns, becomes an answer; only what is no Exception ends the worker.
"""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.streambench import ERROR, TASK
from klyng_mp.pooling.tasks import (
    CALL,
    CALL_BOTH,
    CALL_STAR,
    CANNOT_TRAVEL,
    FAILURE,
    MAP,
    pack_failure,
    pack_refusal,
)
from klyng_mp.wire.explain import describe

if TYPE_CHECKING:
    from klyng_mp.pooling.tasks import Work
    from klyng_mp.wire.codec import Codec, Encoded

    _Answer = tuple[int, int, int, bytes, list[Any]]  # context, index, code, head, buffers

__all__ = ["Note", "answer_to", "call_function", "describe_error", "note_of"]


class Note:
    """What is known of the function of a batch."""

    __slots__ = ("_function", "encoded", "how", "is_plain")

    def __init__(self, how: int, encoded: Encoded, *, is_plain: bool) -> None:
        self.how = how
        self.encoded = encoded
        self.is_plain = is_plain
        self._function: Any = None

    def function(self, decoder: Codec) -> Any:
        """Return the function: a fresh one for each task, if tasks could change it."""
        if self._function is not None:
            return self._function
        function = decoder.decode(*self.encoded)
        if self.is_plain:
            self._function = function
        return function

    def shortcut(self, decoder: Codec) -> Any:
        """Return the function where it may be called for one task after the other, or None."""
        if not self.is_plain or self.how not in (CALL, CALL_STAR):
            return None
        try:
            return self.function(decoder)
        except Exception:  # noqa: BLE001 - each task finds out for itself
            return None


def call_function(how: int, function: Any, argument: Any) -> Any:
    """Return what a task comes to."""
    if how == CALL:
        return function(argument)
    if how == CALL_STAR:
        return function(*argument)
    if how == CALL_BOTH:
        args, kwargs = argument
        return function(*args, **kwargs)
    return list(map(function, argument) if how == MAP else starmap(function, argument))


def note_of(work: Work, how: int) -> Note | None:
    """Return what is to be known of a batch's function; None where that is the one of the batch before."""
    return None if work.function is None else Note(how, work.function, is_plain=work.is_plain)


def answer_to(codec: Codec, kind: int, context: int, index: int, note: Note, *content: Any) -> _Answer:
    """Return what is left of a task to be sent: all else that belongs to it has gone when this has returned."""
    first, second, third = content
    argument: Any = first
    if kind == TASK:
        try:
            argument = "?"
            function = note.function(codec)
            argument = codec.decode(first, second, third)
            value = call_function(note.how, function, argument)
        except Exception as error:  # noqa: BLE001 - it is the task's answer
            return (context, index, *_encode_error(codec, index, note, argument, error))
    elif kind == ERROR:
        return (context, index, *_encode_error(codec, index, note, argument, second))
    else:
        value = second
    try:
        return (context, index, *codec.encode(value, name="the result"))
    except Exception as refusal:  # noqa: BLE001 - it is the task's answer
        return (context, index, *_refuse(refusal, value))


def _encode_error(codec: Codec, index: int, note: Note, argument: Any, error: Exception) -> Encoded:
    text = describe_error(error) + _describe_task(index, note, argument, codec)
    trace, error.__traceback__ = error.__traceback__, None
    try:
        code, head, buffers = codec.encode(error)
    except Exception as refusal:  # noqa: BLE001 - it is the task's answer
        return _refuse(refusal, error)
    finally:
        del trace
    return code | FAILURE, pack_failure(text, head), buffers


def _refuse(refusal: Exception, value: Any) -> Encoded:
    try:
        shown = repr(value)
    except Exception as error:  # noqa: BLE001 - whatever it says of itself, this is about something else
        shown = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return CANNOT_TRAVEL, pack_refusal(refusal, shown), []


def describe_error(error: Exception) -> str:
    """Return an exception and its traceback as text."""
    import traceback  # noqa: PLC0415 - only who has an error needs it

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _describe_task(index: int, note: Note, argument: Any, decoder: Codec) -> str:
    try:
        function: Any = note.function(decoder)
        name = getattr(function, "__qualname__", None) or type(function).__name__
    except Exception:  # noqa: BLE001 - that is what the error is about
        name = "a function that cannot be rebuilt here"
    try:
        shown = describe(argument)
    except Exception:  # noqa: BLE001 - it is only shown
        shown = type(argument).__name__
    return f"(in task {index} of {name}, with {shown})\n"
