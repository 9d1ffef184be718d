"""Communicators of mpi4py's kind on threads of this process, for the tests of this room."""

from __future__ import annotations

from contracts.ranks import ranks

from klyng_mp.MPI.communicators import _wrap


def on_ranks(size, *functions):
    """Call one function for all ranks, or one for each, with its communicator; return the results by rank."""
    with ranks(size) as made:
        return made.run(*[lambda comm, f=function: f(_wrap(comm)) for function in functions])
