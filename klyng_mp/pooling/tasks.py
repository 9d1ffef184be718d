"""Tasks as bytes: batches of them on their way to a worker, and what comes back.

Layer: pooling; imports wire and reduction. No sockets, no clocks.

A batch is a piece of one job: consecutive tasks, each encoded on its own when it was taken from the user's iterable,
so that two tasks never share an argument, and one that cannot be encoded harms no other.
"""

from __future__ import annotations

import pickle
import struct
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.native import core
from klyng_mp.wire.codec import PICKLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from klyng_mp.pooling.encoding import Encoder
    from klyng_mp.wire.codec import Encoded

__all__ = [
    "ANSWERS",
    "AT_END",
    "CALL",
    "CALL_BOTH",
    "CALL_STAR",
    "CANNOT_TRAVEL",
    "FAILURE",
    "FIRST_JOB",
    "GIVEN",
    "HOLD",
    "ITERATOR_RAISED",
    "LONG_ITEM",
    "MAP",
    "MAP_STAR",
    "MORE",
    "ORDER",
    "READY",
    "RECALL",
    "STOP",
    "TASK_HEADER",
    "UNFIT",
    "WORK",
    "Batch",
    "Function",
    "Packed",
    "Work",
    "pack_answers",
    "pack_count",
    "pack_tasks",
    "pack_work",
    "pure_pack_tasks",
    "unpack_answers",
    "unpack_count",
    "unpack_work",
]

# How the function of a job is called with what a task has: f(x), f(*x), f(*x[0], **x[1]), or for all of a chunk.
CALL, CALL_STAR, CALL_BOTH, MAP, MAP_STAR = range(5)

# Contexts of messages between a pool and its workers; those of results are odd numbers from FIRST_JOB on. Over a stream
# results come as ANSWERS, many in one message, in the order of the tasks.
ORDER, WORK, ANSWERS = 0, 1, 2
FIRST_JOB = 3
STOP, READY, UNFIT, RECALL, GIVEN, HOLD = range(6)  # tags of an ORDER; the last three have a number: tasks, or us

FAILURE = 0x40  # a bit of a result's code: it is an error
CANNOT_TRAVEL = 0x7F  # the code of what could not be encoded

MORE, AT_END, LONG_ITEM, ITERATOR_RAISED = range(4)  # what ended `pack_tasks`

TASK_HEADER = struct.Struct("<IHBx")  # as TaskHeader in _core/crew.h
_WORK = struct.Struct("<QqIIHBB")
_KNOWN = 0xFF  # the code of a function that the worker has already

Packed = tuple[bytes, int, int, Any]


class Function(NamedTuple):
    """The function of a job, ready to travel.

    Attributes:
        encoded: its code, head and buffers.
        is_plain: it has no state that a task could change, so it is rebuilt once for all tasks of a batch.
        name: for people.
    """

    encoded: Encoded
    is_plain: bool
    name: str

    @classmethod
    def of(cls, function: Any, encoder: Encoder) -> Function:
        """Encode a function.

        Raises:
            CodecError: it cannot travel.
        """
        kind = type(function)
        if kind is FunctionType and encoder.is_known(function):
            found: Function | None = encoder.functions.get(function)
            if found is None:
                found = cls((PICKLE, pickle.dumps(function, 5), []), True, function.__qualname__)
                encoder.functions[function] = found
            return found
        name = getattr(function, "__qualname__", None) or kind.__name__
        plain = kind is FunctionType or isinstance(function, type)
        if kind is BuiltinFunctionType:
            plain = function.__self__ is None or isinstance(function.__self__, ModuleType)
        return cls(encoder.encode(function, name=name), plain, name)


class Batch:
    """Consecutive tasks of one job.

    Attributes:
        job: whose they are.
        first: index of the first one.
        count: how many.
        text: the tasks, one behind the other.
        buffers: the large buffers of all of them.
    """

    __slots__ = ("buffers", "count", "first", "job", "text")

    def __init__(self, job: Any, first: int, count: int, text: bytes, buffers: Sequence[Any] = ()) -> None:
        self.job = job
        self.first = first
        self.count = count
        self.text = text
        self.buffers = buffers

    @property
    def size_bytes(self) -> int:
        """The bytes of its large buffers."""
        return sum(len(buffer) for buffer in self.buffers) if self.buffers else 0

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first ``count`` tasks and the rest."""
        offset = buffer = 0
        for _ in range(count):
            size, buffers, _ = TASK_HEADER.unpack_from(self.text, offset)
            offset += TASK_HEADER.size + size
            buffer += buffers
        return (
            Batch(self.job, self.first, count, self.text[:offset], self.buffers[:buffer]),
            Batch(self.job, self.first + count, self.count - count, self.text[offset:], self.buffers[buffer:]),
        )

    def add(self, other: Batch) -> None:
        """Append the tasks that follow."""
        self.text += other.text
        self.count += other.count
        if other.buffers:
            self.buffers = [*self.buffers, *other.buffers]

    def task(self) -> Encoded:
        """Return the first task."""
        size, buffers, code = TASK_HEADER.unpack_from(self.text)
        return code, self.text[TASK_HEADER.size : TASK_HEADER.size + size], list(self.buffers[:buffers])

    @classmethod
    def single(cls, job: Any, index: int, encoded: Encoded) -> Batch:
        """Return a batch of one task."""
        code, head, buffers = encoded
        return cls(job, index, 1, TASK_HEADER.pack(len(head), len(buffers), code) + head, buffers)


def pure_pack_tasks(iterator: Iterator[Any], most: int, most_bytes: int, main_by_reference: bool) -> Packed:
    """Take items and write them as tasks: here, leave every item to the codec; see the core's ``pack_tasks``."""
    del most, most_bytes, main_by_reference
    try:
        for item in iterator:
            return b"", 0, LONG_ITEM, item
    except Exception as error:  # noqa: BLE001 - it is the result of a task
        return b"", 0, ITERATOR_RAISED, error
    return b"", 0, AT_END, None


pack_tasks = pure_pack_tasks if core is None else core.pack_tasks


class Work(NamedTuple):
    """A batch as its worker has it.

    Attributes:
        context: of the results.
        first: index of the first task.
        number: of tasks.
        function: (code, head, buffers), or None where it is that of the batch before.
        is_plain: see `Function`.
        text: the whole head, in which the tasks begin at `offset`.
        buffers: the whole message's, of which those of the tasks begin at `buffer`.
    """

    context: int
    first: int
    number: int
    function: Encoded | None
    is_plain: bool
    text: bytes
    offset: int
    buffers: Sequence[Any]
    buffer: int


def pack_work(batch: Batch, context: int, function: Function | None) -> tuple[bytes, Sequence[Any]]:
    """Return head and buffers of a message for a batch; without a function, if the worker has it already."""
    if function is None:
        return _WORK.pack(context, batch.first, batch.count, 0, 0, _KNOWN, 0) + batch.text, batch.buffers
    code, head, buffers = function.encoded
    front = _WORK.pack(context, batch.first, batch.count, len(head), len(buffers), code, function.is_plain)
    return front + head + batch.text, [*buffers, *batch.buffers] if buffers else batch.buffers


def unpack_work(head: bytes, buffers: Sequence[Any]) -> Work:
    """Return what `pack_work` has made a message of."""
    context, first, count, size, own, code, plain = _WORK.unpack_from(head)
    end = _WORK.size + size
    function = None if code == _KNOWN else (code, head[_WORK.size : end], list(buffers[:own]))
    return Work(context, first, count, function, bool(plain), head, end, buffers, own)


_ANSWERS = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")


def pack_answers(count: int, busy_ns: int, text: bytes) -> bytes:
    """Return the head of a message with answers: how many, how long their tasks took, and they, each as a task."""
    return _ANSWERS.pack(count, busy_ns) + text


def unpack_answers(head: bytes) -> tuple[int, int, int]:
    """Return count and nanoseconds of a message with answers, and where in its head they begin."""
    return (*_ANSWERS.unpack_from(head), _ANSWERS.size)


def pack_count(count: int) -> bytes:
    """Return the head of an order with a number."""
    return _LENGTH.pack(count)


def unpack_count(head: bytes) -> int:
    """Return the number of an order."""
    count: int = _LENGTH.unpack_from(head)[0]
    return count


def pack_failure(text: str, payload: bytes) -> bytes:
    """Return the head of a failure: the worker's traceback, and the error."""
    data = text.encode("utf-8", "backslashreplace")
    return _LENGTH.pack(len(data)) + data + payload


def unpack_failure(head: bytes) -> tuple[str, bytes]:
    """Return traceback and error of a failure's head."""
    (size,) = _LENGTH.unpack_from(head)
    return head[_LENGTH.size : _LENGTH.size + size].decode("utf-8", "replace"), head[_LENGTH.size + size :]


def pack_refusal(reason: Exception, value: str) -> bytes:
    """Return the head that says what could not travel, and why."""
    return pickle.dumps((repr(reason), value, getattr(reason, "path", "")), 5)


def unpack_refusal(head: bytes) -> tuple[str, str, str]:
    """Return why, what, and where in it the culprit sits."""
    reason, value, path = pickle.loads(head)  # noqa: S301 - from a worker of this pool
    return reason, value, path
