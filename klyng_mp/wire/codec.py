"""Objects as bytes and back: what a rank sends becomes a code, a head, and large buffers beside it.

Layer: wire; imports errors, arrays, mailbox, packing and explain.

Invariants: encoding happens in the caller's thread and raises there. None, bool, int, float, str, bytes and
bytearray of exactly these types never meet pickle, nor do plain NumPy arrays (arrays.py). An ordinary object costs one
call of the C pickler; only what that refuses, or writes as a reference into ``__main__``, is packed by value
(packing.py), and dill is imported only for what even that refuses. Decoding is ``pickle.loads`` whatever the encoder
had to do.
"""

from __future__ import annotations

import io
import marshal
import pickle
import struct
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.errors import CodecAttributeError, CodecError, CodecTypeError, NotAcrossHostsError
from klyng_mp.wire.arrays import decode_array, describe_array
from klyng_mp.wire.byvalue import REFUSALS
from klyng_mp.wire.explain import Culprit, describe, describe_error, find_culprit, names_in, type_name
from klyng_mp.wire.mailbox import SYNCHRONOUS
from klyng_mp.wire.namespace import NAMESPACES, REGISTRY, install_main
from klyng_mp.wire.packing import APART_BYTES, Known, Packing, Reducers, body_of, keep_large, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from klyng_mp.wire.frames import Message

__all__ = ["BARE", "PICKLE", "Codec", "Encoded", "content_size", "describe", "install_main", "open_carried"]

# Codes of messages: one byte on the wire.
_NONE, _BOOL, _INT, _FLOAT, _STR, _BYTES, _BYTES_APART, _BYTEARRAY, _BYTEARRAY_APART, _PICKLE, _PACKED, _RUN = range(12)
_PLAIN = 12  # small containers of the types above, by marshal; only the core's short way writes it
_ARRAY = 13
PICKLE = _PICKLE  # for who makes such messages himself
BARE = frozenset({_BYTES_APART, _BYTEARRAY_APART, _ARRAY})  # the kinds whose one buffer is all of their content

Encoded = tuple[int, bytes, list[memoryview]]
"""A message's code, its head, and its out-of-band buffers: views of the sender's own memory."""

# "__main__" and multiprocessing's "__mp_main__" both end so.
_MAIN_TAIL = b"main__"

_KINDS = {TypeError: CodecTypeError, AttributeError: CodecAttributeError}

_FLOAT_FORMAT = struct.Struct("<d")
_EMPTY: tuple[Any, ...] = ()


def content_size(message: Message) -> int:
    """Return how many bytes a message has besides what says how an array's elements are to be taken."""
    return message.nbytes - len(message.head) if message.code & ~SYNCHRONOUS == _ARRAY else message.nbytes


def _encode_bytes(obj: bytes) -> Encoded:
    return (_BYTES, obj, []) if len(obj) < APART_BYTES else (_BYTES_APART, b"", [memoryview(obj)])


def _encode_bytearray(obj: bytearray) -> Encoded:
    return (_BYTEARRAY, bytes(obj), []) if len(obj) < APART_BYTES else (_BYTEARRAY_APART, b"", [memoryview(obj)])


_ENCODERS: dict[type, Callable[[Any], Encoded]] = {
    type(None): lambda _: (_NONE, b"", []),
    bool: lambda obj: (_BOOL, b"\1" if obj else b"\0", []),
    int: lambda obj: (_INT, obj.to_bytes(obj.bit_length() // 8 + 1, "little", signed=True), []),
    float: lambda obj: (_FLOAT, _FLOAT_FORMAT.pack(obj), []),
    str: lambda obj: (_STR, obj.encode("utf-8", "surrogatepass"), []),
    bytes: _encode_bytes,
    bytearray: _encode_bytearray,
}

_DECODERS: dict[int, Callable[[bytes, Sequence[Any]], Any]] = {
    _NONE: lambda _head, _buffers: None,
    _BOOL: lambda head, _buffers: head != b"\0",
    _INT: lambda head, _buffers: int.from_bytes(head, "little", signed=True),
    _FLOAT: lambda head, _buffers: _FLOAT_FORMAT.unpack(head)[0],
    _STR: lambda head, _buffers: str(head, "utf-8", "surrogatepass"),
    _BYTES: lambda head, _buffers: bytes(head),
    _BYTES_APART: lambda _head, buffers: bytes(buffers[0]),
    _BYTEARRAY: lambda head, _buffers: bytearray(head),
    _BYTEARRAY_APART: lambda _head, buffers: buffers[0] if type(buffers[0]) is bytearray else bytearray(buffers[0]),
    _PICKLE: lambda head, buffers: pickle.loads(head, buffers=buffers),  # noqa: S301 - from a rank of this World
    _PLAIN: lambda head, _buffers: marshal.loads(head),  # noqa: S302 - from a rank of this World
    _ARRAY: decode_array,
    _PACKED: lambda head, buffers: unpack(head, buffers, run=False)[0],
}


class Codec:
    """Encodes and decodes the messages of one World.

    Args:
        main_by_reference: the receivers run the same program as ``__main__`` (fork, spawn, the shell command), so
            its importable classes and functions travel as references; else by value.
        reducers: how objects of certain types are pickled, as pickle's ``dispatch_table``; None: as copyreg says.

    Threads: all may encode and decode; a run's own messages come one after another.
    """

    __slots__ = ("_known", "_reducers", "_sent", "main_by_reference")

    def __init__(self, *, main_by_reference: bool, reducers: Reducers | None = None) -> None:
        self.main_by_reference = main_by_reference
        self._reducers = reducers
        self._known = Known()
        self._sent: dict[int, Any] = {}

    @property
    def main_module(self) -> ModuleType | None:
        """The driver's ``__main__`` as this process knows it from the run decoded last: for ``install_main``."""
        return self._known.main

    def encode(self, obj: object, *, name: str = "", names: Sequence[str] = ()) -> Encoded:
        """Return ``obj`` as code, head and buffers.

        Args:
            obj: anything.
            name: what the user calls it, for the error's path; by default its class's name.
            names: if it is a tuple that was put together for the journey, what the user calls the elements.

        Returns:
            Buffers of 4 KiB and more are views of the object's own memory: they change with it until they are sent.

        Raises:
            CodecError: it cannot travel; says which part of it, and has pickle's own error as its cause.
            NotAcrossHostsError: it would leave this machine, and means nothing elsewhere.
        """
        return self._encode_plainly(obj, name, names) or self._pack(obj, name, names, self._known)

    def encode_run(self, obj: object, *, name: str = "", names: Sequence[str] = ()) -> Encoded:
        """Return ``obj`` (a function and its arguments) for all ranks of a run.

        As ``encode``, but whatever the receivers know already: every definition comes with it, and every global that
        is referred to, with the value that it has now. What was sent is kept alive until the next run is encoded, so
        that it can come home.
        """
        function = obj[0] if type(obj) is tuple and obj else obj
        if self.main_by_reference or type(function) is not FunctionType or not _is_main(function):
            encoded = self._encode_plainly(obj, name, names)
            if encoded is not None:
                self._sent = {}
                return encoded
        return self._pack(obj, name, names, None)

    def encode_pickle(self, obj: object, apart: list[memoryview] | None = None) -> bytes:
        """Return ``obj`` as a pickle that plain ``pickle.loads`` opens wherever klyng_mp can be imported.

        Args:
            obj: anything.
            apart: gets the buffers of 4 KiB and more; None: they stay in the pickle.

        Raises:
            CodecError: as in ``encode``.
        """
        callback = None if apart is None else keep_large(apart)
        if REGISTRY.find(type(obj)) is None:
            try:
                data = self._pickle(obj, callback)
            except REFUSALS:
                pass
            except Exception as error:  # noqa: BLE001 - refused by whatever it is
                self._refuse(obj, "", (), error)
            else:
                if self.main_by_reference or _MAIN_TAIL not in data:
                    return data
        if apart:
            apart.clear()
        code, head, buffers = self._pack(obj, "", (), self._known)
        return pickle.dumps(_Carried(code, head, buffers), 5, buffer_callback=callback)

    def decode(self, code: int, head: bytes, buffers: Sequence[Any] = _EMPTY) -> Any:
        """Return the object of a message.

        Args:
            code: as ``encode`` returned it.
            head: likewise.
            buffers: the receiver's copies. The object may use their memory from now on (a bytearray becomes the
                object itself), so they must be its own.

        Raises:
            CodecError: it cannot be rebuilt here; the cause says what went wrong.
        """
        decoder = _DECODERS.get(code)
        try:
            if decoder is not None:
                return decoder(head, buffers)
            if code == _RUN:
                return unpack(head, buffers, run=True)[0]
        except Exception as error:
            raise _decode_error(error, code, head) from error
        raise CodecError(f"a message of the unknown kind {code} has arrived: both sides must run the same klyng_mp")

    def decode_run(self, code: int, head: bytes, buffers: Sequence[Any] = _EMPTY) -> Any:
        """Return the object of a run's message, and remember what came with it as known to every rank of the run."""
        if code != _RUN:
            self._known = Known()
            return self.decode(code, head, buffers)
        try:
            obj, self._known = unpack(head, buffers, run=True)
        except Exception as error:
            raise _decode_error(error, code, head) from error
        return obj

    @staticmethod
    def decode_error(error: Exception, code: int, head: bytes) -> CodecError:
        """Return the error that says why a message, of which unpickling made ``error``, cannot be rebuilt here."""
        return _decode_error(error, code, head)

    def _encode_plainly(self, obj: object, name: str, names: Sequence[str]) -> Encoded | None:
        """Encode by a typed head or the C pickler; None if that is not enough."""
        encoder = _ENCODERS.get(type(obj))
        if encoder is not None:
            return encoder(obj)
        if type(obj).__name__ == "ndarray" and (described := describe_array(obj)) is not None:
            head, memory = described
            if memory.nbytes >= APART_BYTES:
                return _ARRAY, head, [memory]
        if REGISTRY.find(type(obj)) is not None:
            return None
        buffers: list[memoryview] = []
        try:
            head = self._pickle(obj, keep_large(buffers))
        except REFUSALS:
            return None
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(obj, name, names, error)
        if not self.main_by_reference and _MAIN_TAIL in head:
            return None
        return _PICKLE, head, buffers

    def _pickle(self, obj: object, callback: Callable[[pickle.PickleBuffer], bool] | None) -> bytes:
        if self._reducers is None:
            return pickle.dumps(obj, 5, buffer_callback=callback)
        file = io.BytesIO()
        pickler = pickle.Pickler(file, 5, buffer_callback=callback)
        pickler.dispatch_table = self._reducers
        pickler.dump(obj)
        return file.getvalue()

    def _pack(self, obj: object, name: str, names: Sequence[str], known: Known | None) -> Encoded:
        packing = Packing(main_by_reference=self.main_by_reference, known=known, reducers=self._reducers)
        try:
            front, body, buffers = packing.pack(obj, run=known is None)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(obj, name, names, error)
        if known is None:
            self._sent = packing.items
            return _RUN, front + body, buffers
        return (_PACKED, front + body, buffers) if front else (_PICKLE, body, buffers)

    def _refuse(self, obj: object, name: str, names: Sequence[str], error: Exception) -> NoReturn:
        """Raise what says why an object cannot travel."""
        try:
            refuses = isinstance(error, NotAcrossHostsError) or self._reducers is not None
            if not refuses or isinstance(error, (RecursionError, *REFUSALS)):
                raise self._error(obj, name, names, error) from error
            # As multiprocessing lets its own and the user's refusals through.
            error.add_note(f"{self._culprit(obj, name, names, error).path} cannot travel to another process")
            raise error
        finally:
            del error  # it holds this frame, which must not hold it

    def _error(self, obj: object, name: str, names: Sequence[str], error: Exception) -> CodecError:
        if isinstance(error, RecursionError):
            return CodecError(f"{describe(obj)} is nested too deeply to be pickled: {error}; send it in flatter parts")
        culprit = self._culprit(obj, name, names, error)
        kind = next((ours for theirs, ours in _KINDS.items() if isinstance(error, theirs)), CodecError)
        return kind(
            f"{culprit.path} cannot travel to another process: it is {_article(type_name(culprit.obj))} "
            f"({culprit.reason}); leave it out, for instance with __getstate__, or make it where it is used",
            path=culprit.path,
        )

    def _culprit(self, obj: object, name: str, names: Sequence[str], error: Exception) -> Culprit:
        try:
            return find_culprit(obj, self._attempt, name=name, names=names)
        except Exception:  # noqa: BLE001 - an object may lie even about its class, and this error is what counts
            return Culprit(name or "the object", obj, describe_error(error))

    def _attempt(self, part: object) -> None:
        try:
            head = self._pickle(part, lambda _: False)
        except REFUSALS:
            pass
        else:
            if self.main_by_reference or _MAIN_TAIL not in head:
                return
        Packing(main_by_reference=self.main_by_reference, known=self._known, reducers=self._reducers).pack(part)


class _Carried:
    """In the place of an object that plain pickle cannot pickle: its pickle opens to the object itself."""

    def __init__(self, code: int, head: bytes, buffers: list[memoryview]) -> None:
        self._content = code, head, buffers

    def __reduce__(self) -> tuple[Any, ...]:
        code, head, buffers = self._content
        return open_carried, (code, head, *map(pickle.PickleBuffer, buffers))


def open_carried(code: int, head: bytes, *buffers: Any) -> Any:
    """Return the object that `Codec.encode_pickle` has carried by value; pickles call this."""
    if code == _PICKLE:
        return pickle.loads(head, buffers=buffers)  # noqa: S301 - a part of a pickle
    return unpack(head, buffers, run=False)[0]


def _is_main(function: FunctionType) -> bool:
    return NAMESPACES.id_of(function.__globals__) is not None


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def _decode_error(error: Exception, code: int, head: bytes) -> CodecError:
    if isinstance(error, ModuleNotFoundError):
        return CodecError(
            f"a message cannot be rebuilt here: it needs the module {error.name!r}, which this process cannot import"
        )
    names = names_in(head if code == _PICKLE else body_of(head)) if code in (_PICKLE, _PACKED, _RUN) else []
    held = f" (it holds {', '.join(names[:5])})" if names else ""
    return CodecError(f"a message{held} cannot be rebuilt here: {describe_error(error)}")
