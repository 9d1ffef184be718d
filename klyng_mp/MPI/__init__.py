"""mpi4py's spelling of klyng_mp, for its programs: ``from klyng_mp import MPI`` instead of ``from mpi4py import MPI``.

Layer: MPI; gathers the names of its modules, and explains those that are not there.

What is here has mpi4py's names, parameters and defaults. What is not here is an AttributeError that says what to use
instead: derived datatypes, windows, files, intercommunicators, new processes. See docs/mpi4py.md.
"""

from __future__ import annotations

from typing import Any

from klyng_mp.errors import KlyngError
from klyng_mp.MPI.communicators import COMM_NULL as COMM_NULL
from klyng_mp.MPI.communicators import COMM_SELF as COMM_SELF
from klyng_mp.MPI.communicators import COMM_WORLD as COMM_WORLD
from klyng_mp.MPI.communicators import Cartcomm as Cartcomm
from klyng_mp.MPI.communicators import Comm as Comm
from klyng_mp.MPI.communicators import Intracomm as Intracomm
from klyng_mp.MPI.datatypes import DATATYPE_NULL as DATATYPE_NULL
from klyng_mp.MPI.datatypes import NAMED
from klyng_mp.MPI.datatypes import Datatype as Datatype
from klyng_mp.MPI.datatypes import type_codes as _type_codes
from klyng_mp.MPI.environment import ANY_SOURCE as ANY_SOURCE
from klyng_mp.MPI.environment import ANY_TAG as ANY_TAG
from klyng_mp.MPI.environment import CART as CART
from klyng_mp.MPI.environment import COMM_TYPE_SHARED as COMM_TYPE_SHARED
from klyng_mp.MPI.environment import CONGRUENT as CONGRUENT
from klyng_mp.MPI.environment import ERRORS_ABORT as ERRORS_ABORT
from klyng_mp.MPI.environment import ERRORS_ARE_FATAL as ERRORS_ARE_FATAL
from klyng_mp.MPI.environment import ERRORS_RETURN as ERRORS_RETURN
from klyng_mp.MPI.environment import IDENT as IDENT
from klyng_mp.MPI.environment import IN_PLACE as IN_PLACE
from klyng_mp.MPI.environment import INFO_NULL as INFO_NULL
from klyng_mp.MPI.environment import MAX_ERROR_STRING as MAX_ERROR_STRING
from klyng_mp.MPI.environment import MAX_LIBRARY_VERSION_STRING as MAX_LIBRARY_VERSION_STRING
from klyng_mp.MPI.environment import MAX_PROCESSOR_NAME as MAX_PROCESSOR_NAME
from klyng_mp.MPI.environment import PROC_NULL as PROC_NULL
from klyng_mp.MPI.environment import SIMILAR as SIMILAR
from klyng_mp.MPI.environment import SUBVERSION as SUBVERSION
from klyng_mp.MPI.environment import SUCCESS as SUCCESS
from klyng_mp.MPI.environment import TAG_UB as TAG_UB
from klyng_mp.MPI.environment import THREAD_FUNNELED as THREAD_FUNNELED
from klyng_mp.MPI.environment import THREAD_MULTIPLE as THREAD_MULTIPLE
from klyng_mp.MPI.environment import THREAD_SERIALIZED as THREAD_SERIALIZED
from klyng_mp.MPI.environment import THREAD_SINGLE as THREAD_SINGLE
from klyng_mp.MPI.environment import UNDEFINED as UNDEFINED
from klyng_mp.MPI.environment import UNEQUAL as UNEQUAL
from klyng_mp.MPI.environment import UNIVERSE_SIZE as UNIVERSE_SIZE
from klyng_mp.MPI.environment import VERSION as VERSION
from klyng_mp.MPI.environment import WTIME_IS_GLOBAL as WTIME_IS_GLOBAL
from klyng_mp.MPI.environment import Compute_dims as Compute_dims
from klyng_mp.MPI.environment import Errhandler as Errhandler
from klyng_mp.MPI.environment import Finalize as Finalize
from klyng_mp.MPI.environment import Get_library_version as Get_library_version
from klyng_mp.MPI.environment import Get_processor_name as Get_processor_name
from klyng_mp.MPI.environment import Get_version as Get_version
from klyng_mp.MPI.environment import Info as Info
from klyng_mp.MPI.environment import Init as Init
from klyng_mp.MPI.environment import Init_thread as Init_thread
from klyng_mp.MPI.environment import InPlaceType as InPlaceType
from klyng_mp.MPI.environment import Is_finalized as Is_finalized
from klyng_mp.MPI.environment import Is_initialized as Is_initialized
from klyng_mp.MPI.environment import Is_thread_main as Is_thread_main
from klyng_mp.MPI.environment import Query_thread as Query_thread
from klyng_mp.MPI.environment import Wtick as Wtick
from klyng_mp.MPI.environment import Wtime as Wtime
from klyng_mp.MPI.environment import get_vendor as get_vendor
from klyng_mp.MPI.groups import GROUP_EMPTY as GROUP_EMPTY
from klyng_mp.MPI.groups import GROUP_NULL as GROUP_NULL
from klyng_mp.MPI.groups import Group as Group
from klyng_mp.MPI.operations import BAND as BAND
from klyng_mp.MPI.operations import BOR as BOR
from klyng_mp.MPI.operations import BXOR as BXOR
from klyng_mp.MPI.operations import LAND as LAND
from klyng_mp.MPI.operations import LOR as LOR
from klyng_mp.MPI.operations import LXOR as LXOR
from klyng_mp.MPI.operations import MAX as MAX
from klyng_mp.MPI.operations import MAXLOC as MAXLOC
from klyng_mp.MPI.operations import MIN as MIN
from klyng_mp.MPI.operations import MINLOC as MINLOC
from klyng_mp.MPI.operations import OP_NULL as OP_NULL
from klyng_mp.MPI.operations import PROD as PROD
from klyng_mp.MPI.operations import SUM as SUM
from klyng_mp.MPI.operations import Op as Op
from klyng_mp.MPI.statuses import MESSAGE_NULL as MESSAGE_NULL
from klyng_mp.MPI.statuses import REQUEST_NULL as REQUEST_NULL
from klyng_mp.MPI.statuses import Message as Message
from klyng_mp.MPI.statuses import Request as Request
from klyng_mp.MPI.statuses import Status as Status

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "BAND",
    "BOR",
    "BXOR",
    "CART",
    "COMM_NULL",
    "COMM_SELF",
    "COMM_TYPE_SHARED",
    "COMM_WORLD",
    "CONGRUENT",
    "DATATYPE_NULL",
    "ERRORS_ABORT",
    "ERRORS_ARE_FATAL",
    "ERRORS_RETURN",
    "GROUP_EMPTY",
    "GROUP_NULL",
    "IDENT",
    "INFO_NULL",
    "IN_PLACE",
    "LAND",
    "LOR",
    "LXOR",
    "MAX",
    "MAXLOC",
    "MAX_ERROR_STRING",
    "MAX_LIBRARY_VERSION_STRING",
    "MAX_PROCESSOR_NAME",
    "MESSAGE_NULL",
    "MIN",
    "MINLOC",
    "OP_NULL",
    "PROC_NULL",
    "PROD",
    "REQUEST_NULL",
    "SIMILAR",
    "SUBVERSION",
    "SUCCESS",
    "SUM",
    "TAG_UB",
    "THREAD_FUNNELED",
    "THREAD_MULTIPLE",
    "THREAD_SERIALIZED",
    "THREAD_SINGLE",
    "UNDEFINED",
    "UNEQUAL",
    "UNIVERSE_SIZE",
    "VERSION",
    "WTIME_IS_GLOBAL",
    "Cartcomm",
    "Comm",
    "Compute_dims",
    "Datatype",
    "Errhandler",
    "Exception",
    "Finalize",
    "Get_library_version",
    "Get_processor_name",
    "Get_version",
    "Group",
    "InPlaceType",
    "Info",
    "Init",
    "Init_thread",
    "Intracomm",
    "Is_finalized",
    "Is_initialized",
    "Is_thread_main",
    "Message",
    "Op",
    "Query_thread",
    "Request",
    "Status",
    "Wtick",
    "Wtime",
    "get_vendor",
]
__all__ += sorted(NAMED)  # noqa: PLE0605

Exception = KlyngError
globals().update(NAMED)  # DOUBLE, INT and so on
_typedict = _type_codes()  # programs of mpi4py look here for the datatype of ``array.dtype.char``

_INSTEAD = {
    "Win": "there is no one-sided communication: use messages, or multiprocessing.shared_memory on one host",
    "File": "there is no MPI-IO: let each rank write a file of its own, or gather at one",
    "Intercomm": "there are no intercommunicators: use Split(), and messages in the communicator of all",
    "Graphcomm": "of topologies there is Create_cart() only",
    "Distgraphcomm": "of topologies there is Create_cart() only",
    "Prequest": "there are no persistent requests: use Isend() and Irecv() each time",
    "Grequest": "there are no requests of a program's own: use a thread, or a future",
    "Session": "there are no sessions: use COMM_WORLD",
    "BOTTOM": "there are no absolute addresses: give the buffer itself",
    "Open_port": "programs that were started apart cannot be joined: start all ranks at once",
    "Attach_buffer": "there is no Bsend(): use Send(), which has copied the elements when it returns",
    "pickle": "objects are encoded by klyng_mp, which also sends what pickle refuses",
}


def __getattr__(name: str) -> Any:
    sentence = _INSTEAD.get(name, "docs/mpi4py.md lists what it has")
    raise AttributeError(f"klyng_mp.MPI has no {name}: {sentence}")
