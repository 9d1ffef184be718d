"""A multiprocessing drop-in whose processes have ranks and talk to each other, here and on other machines.

Layer: the facade; gathers the public names and does nothing else.

Layout (a folder imports only from those above it)::

    errors, deadline, machine   leaves; native: whether the C core, _core/, is in use
    wire/                       objects <-> bytes, and matching; no sockets, no clocks
    transports/                 moving messages between two ranks
    communicator/               a group of ranks: send, recv, collectives; the one function that waits
    launch/                     bringing ranks to life, watching them, ending them
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
from klyng_mp.errors import ClosedError as ClosedError
from klyng_mp.errors import CodecError as CodecError
from klyng_mp.errors import CollectiveMismatchError as CollectiveMismatchError
from klyng_mp.errors import DeadlineError as DeadlineError
from klyng_mp.errors import DeadlockError as DeadlockError
from klyng_mp.errors import ForkedError as ForkedError
from klyng_mp.errors import KlyngError as KlyngError
from klyng_mp.errors import LaunchError as LaunchError
from klyng_mp.errors import LocalProtocolError as LocalProtocolError
from klyng_mp.errors import MessageTooLargeError as MessageTooLargeError
from klyng_mp.errors import NoRankError as NoRankError
from klyng_mp.errors import PeerLostError as PeerLostError
from klyng_mp.errors import ProtocolError as ProtocolError
from klyng_mp.errors import RankDiedError as RankDiedError
from klyng_mp.errors import RankFailedError as RankFailedError
from klyng_mp.errors import RemoteProtocolError as RemoteProtocolError
from klyng_mp.errors import RunCancelledError as RunCancelledError
from klyng_mp.errors import TransportError as TransportError
from klyng_mp.errors import UnreceivedMessagesWarning as UnreceivedMessagesWarning
from klyng_mp.errors import WorldBusyError as WorldBusyError
from klyng_mp.errors import WorldError as WorldError
from klyng_mp.launch.statistics import RankStatistics as RankStatistics
from klyng_mp.machine import usable_cpus as usable_cpus
from klyng_mp.run import Run as Run
from klyng_mp.wire.mailbox import ANY_SOURCE as ANY_SOURCE
from klyng_mp.wire.mailbox import ANY_TAG as ANY_TAG
from klyng_mp.wire.mailbox import PROC_NULL as PROC_NULL
from klyng_mp.world import World as World
from klyng_mp.world import WorldStatistics as WorldStatistics

__version__ = "0.1.0"

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
    "Cartesian",
    "ClosedError",
    "CodecError",
    "CollectiveMismatchError",
    "Communicator",
    "DeadlineError",
    "DeadlockError",
    "ForkedError",
    "Group",
    "KlyngError",
    "LaunchError",
    "LocalProtocolError",
    "MatchedMessage",
    "MessageTooLargeError",
    "NoRankError",
    "Operation",
    "PeerLostError",
    "ProtocolError",
    "RankDiedError",
    "RankFailedError",
    "RankStatistics",
    "RemoteProtocolError",
    "Request",
    "Run",
    "RunCancelledError",
    "Status",
    "TransportError",
    "UnreceivedMessagesWarning",
    "World",
    "WorldBusyError",
    "WorldError",
    "WorldStatistics",
    "comm",
    "compute_dims",
    "empty",
    "end",
    "init",
    "rank",
    "recv",
    "recv_into",
    "send",
    "size",
    "testall",
    "usable_cpus",
    "waitall",
    "waitany",
    "waitsome",
]
