"""A multiprocessing drop-in whose processes have ranks and talk to each other, here and on other machines.

Layer: the facade; gathers the public names and does nothing else.

Layout (a folder imports only from those above it)::

    errors, deadline, machine   leaves; native: whether the C core, _core/, is in use
    wire/                       objects <-> bytes, and matching; no sockets, no clocks
    transports/                 moving messages between two ranks
    communicator/               a group of ranks: send, recv, collectives; the one function that waits
    launch/                     bringing ranks to life, watching them, ending them
    green/                      ranks that take turns in one process
    run, world                  n ranks as one object
    MPI/                        mpi4py's names for all this
    cli/                        the command
"""

from __future__ import annotations

from klyng_mp.communicator.communicator import Cartesian as Cartesian
from klyng_mp.communicator.communicator import Communicator as Communicator
from klyng_mp.communicator.current import comm as comm
from klyng_mp.communicator.current import empty as empty
from klyng_mp.communicator.current import end as end
from klyng_mp.communicator.current import init as init
from klyng_mp.communicator.current import rank as rank
from klyng_mp.communicator.current import recv as recv
from klyng_mp.communicator.current import recv_into as recv_into
from klyng_mp.communicator.current import send as send
from klyng_mp.communicator.current import size as size
from klyng_mp.communicator.current import sleep as sleep
from klyng_mp.communicator.current import yield_ as yield_
from klyng_mp.communicator.group import Group as Group
from klyng_mp.communicator.probing import MatchedMessage as MatchedMessage
from klyng_mp.communicator.reductions import BAND as BAND
from klyng_mp.communicator.reductions import BOR as BOR
from klyng_mp.communicator.reductions import BXOR as BXOR
from klyng_mp.communicator.reductions import LAND as LAND
from klyng_mp.communicator.reductions import LOR as LOR
from klyng_mp.communicator.reductions import LXOR as LXOR
from klyng_mp.communicator.reductions import MAX as MAX
from klyng_mp.communicator.reductions import MAXLOC as MAXLOC
from klyng_mp.communicator.reductions import MIN as MIN
from klyng_mp.communicator.reductions import MINLOC as MINLOC
from klyng_mp.communicator.reductions import PROD as PROD
from klyng_mp.communicator.reductions import SUM as SUM
from klyng_mp.communicator.reductions import Operation as Operation
from klyng_mp.communicator.requests import Request as Request
from klyng_mp.communicator.requests import Status as Status
from klyng_mp.communicator.requests import testall as testall
from klyng_mp.communicator.requests import waitall as waitall
from klyng_mp.communicator.requests import waitany as waitany
from klyng_mp.communicator.requests import waitsome as waitsome
from klyng_mp.communicator.topology import compute_dims as compute_dims
from klyng_mp.context import AuthenticationError as AuthenticationError
from klyng_mp.context import BufferTooShort as BufferTooShort
from klyng_mp.context import Process as Process
from klyng_mp.context import ProcessError as ProcessError
from klyng_mp.context import TimeoutError as TimeoutError
from klyng_mp.context import _default_context
from klyng_mp.errors import BeaconBusyError as BeaconBusyError
from klyng_mp.errors import BeaconError as BeaconError
from klyng_mp.errors import BrokenLockError as BrokenLockError
from klyng_mp.errors import BundleError as BundleError
from klyng_mp.errors import ClosedError as ClosedError
from klyng_mp.errors import CodecError as CodecError
from klyng_mp.errors import CollectiveMismatchError as CollectiveMismatchError
from klyng_mp.errors import DeadlineError as DeadlineError
from klyng_mp.errors import DeadlockError as DeadlockError
from klyng_mp.errors import ForkedError as ForkedError
from klyng_mp.errors import HostLostError as HostLostError
from klyng_mp.errors import KlyngError as KlyngError
from klyng_mp.errors import LaunchError as LaunchError
from klyng_mp.errors import LocalProtocolError as LocalProtocolError
from klyng_mp.errors import MachinesError as MachinesError
from klyng_mp.errors import MachinesWarning as MachinesWarning
from klyng_mp.errors import MessageTooLargeError as MessageTooLargeError
from klyng_mp.errors import NoRankError as NoRankError
from klyng_mp.errors import NotAcrossHostsError as NotAcrossHostsError
from klyng_mp.errors import NothingSharedError as NothingSharedError
from klyng_mp.errors import PeerLostError as PeerLostError
from klyng_mp.errors import ProtocolError as ProtocolError
from klyng_mp.errors import RankDiedError as RankDiedError
from klyng_mp.errors import RankFailedError as RankFailedError
from klyng_mp.errors import RemoteProtocolError as RemoteProtocolError
from klyng_mp.errors import RunCancelledError as RunCancelledError
from klyng_mp.errors import TransportError as TransportError
from klyng_mp.errors import UnreceivedMessagesWarning as UnreceivedMessagesWarning
from klyng_mp.errors import WorkerDiedError as WorkerDiedError
from klyng_mp.errors import WorldBusyError as WorldBusyError
from klyng_mp.errors import WorldError as WorldError
from klyng_mp.launch.statistics import RankStatistics as RankStatistics
from klyng_mp.machine import usable_cpus as usable_cpus
from klyng_mp.pooling.sharing import shared as shared
from klyng_mp.run import Run as Run
from klyng_mp.version import __version__ as __version__
from klyng_mp.wire.mailbox import ANY_SOURCE as ANY_SOURCE
from klyng_mp.wire.mailbox import ANY_TAG as ANY_TAG
from klyng_mp.wire.mailbox import PROC_NULL as PROC_NULL
from klyng_mp.world import World as World
from klyng_mp.world import WorldStatistics as WorldStatistics

# multiprocessing's functions are the methods of its default context.
Array = _default_context.Array
Barrier = _default_context.Barrier
BoundedSemaphore = _default_context.BoundedSemaphore
Condition = _default_context.Condition
Event = _default_context.Event
JoinableQueue = _default_context.JoinableQueue
Lock = _default_context.Lock
Manager = _default_context.Manager
Pipe = _default_context.Pipe
Pool = _default_context.Pool
Queue = _default_context.Queue
RLock = _default_context.RLock
RawArray = _default_context.RawArray
RawValue = _default_context.RawValue
Semaphore = _default_context.Semaphore
SimpleQueue = _default_context.SimpleQueue
Value = _default_context.Value
active_children = _default_context.active_children
allow_connection_pickling = _default_context.allow_connection_pickling
cpu_count = _default_context.cpu_count
current_process = _default_context.current_process
freeze_support = _default_context.freeze_support
get_all_start_methods = _default_context.get_all_start_methods
get_context = _default_context.get_context
get_logger = _default_context.get_logger
get_start_method = _default_context.get_start_method
log_to_stderr = _default_context.log_to_stderr
parent_process = _default_context.parent_process
reducer = _default_context.reducer
set_executable = _default_context.set_executable
set_forkserver_preload = _default_context.set_forkserver_preload
set_start_method = _default_context.set_start_method

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "BAND",
    "BOR",
    "BXOR",
    "LAND",
    "LOR",
    "LXOR",
    "MAX",
    "MAXLOC",
    "MIN",
    "MINLOC",
    "PROC_NULL",
    "PROD",
    "SUM",
    "Array",
    "AuthenticationError",
    "Barrier",
    "BeaconBusyError",
    "BeaconError",
    "BoundedSemaphore",
    "BrokenLockError",
    "BufferTooShort",
    "BundleError",
    "Cartesian",
    "ClosedError",
    "CodecError",
    "CollectiveMismatchError",
    "Communicator",
    "Condition",
    "DeadlineError",
    "DeadlockError",
    "Event",
    "ForkedError",
    "Group",
    "HostLostError",
    "JoinableQueue",
    "KlyngError",
    "LaunchError",
    "LocalProtocolError",
    "Lock",
    "MachinesError",
    "MachinesWarning",
    "Manager",
    "MatchedMessage",
    "MessageTooLargeError",
    "NoRankError",
    "NotAcrossHostsError",
    "NothingSharedError",
    "Operation",
    "PeerLostError",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "ProtocolError",
    "Queue",
    "RLock",
    "RankDiedError",
    "RankFailedError",
    "RankStatistics",
    "RawArray",
    "RawValue",
    "RemoteProtocolError",
    "Request",
    "Run",
    "RunCancelledError",
    "Semaphore",
    "SimpleQueue",
    "Status",
    "TimeoutError",
    "TransportError",
    "UnreceivedMessagesWarning",
    "Value",
    "WorkerDiedError",
    "World",
    "WorldBusyError",
    "WorldError",
    "WorldStatistics",
    "active_children",
    "allow_connection_pickling",
    "comm",
    "compute_dims",
    "cpu_count",
    "current_process",
    "empty",
    "end",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "init",
    "log_to_stderr",
    "parent_process",
    "rank",
    "recv",
    "recv_into",
    "reducer",
    "send",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
    "shared",
    "size",
    "sleep",
    "testall",
    "usable_cpus",
    "waitall",
    "waitany",
    "waitsome",
    "yield_",
]
