"""Requests: those of objects and of buffers, alone and several at a time."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
status = MPI.Status()

if rank == 0:
    requests = [comm.irecv(source=index, tag=index) for index in range(1, size)]
    statuses = [MPI.Status() for _ in requests]
    print(MPI.Request.waitall(requests, statuses), [(one.source, one.tag) for one in statuses])
    print([bool(one) for one in requests], requests[0] == MPI.REQUEST_NULL, requests[0].wait(), requests[0].test())
    print(MPI.Request.waitany(requests), MPI.Request.testany(requests), MPI.Request.waitsome(requests))
    print(MPI.Request.testall(requests), MPI.Request.Waitsome(requests))

    arrays = [np.zeros(5000) for _ in range(1, size)]
    requests = [comm.Irecv(one, source=index, tag=9) for index, one in enumerate(arrays, 1)]
    found = set()
    while (index := MPI.Request.Waitany(requests, status)) != MPI.UNDEFINED:
        found.add((index, status.source, status.Get_count(MPI.DOUBLE)))
    print(sorted(found), [one[0] for one in arrays])

    requests = [comm.irecv(source=index, tag=10) for index in range(1, size)]
    got = []
    while (some := MPI.Request.waitsome(requests))[0] is not None:
        got += some[1]
    print(sorted(got))

    late = comm.irecv(source=1, tag=11)
    print(late.test(), MPI.Request.testall([late]), MPI.Request.testany([late]), MPI.Request.testsome([late]))
    print(MPI.Request.Testall([late]), MPI.Request.Testany([late]), MPI.Request.Testsome([late]), late.Test())
    comm.send("go", dest=1)
    while not (tested := late.test(status))[0]:
        pass
    print(tested, status.tag)
    never = comm.irecv(source=1, tag=12)
    never.Cancel()
    never.Wait(status)
    print(status.Is_cancelled())
else:
    comm.isend({"rank": rank}, dest=0, tag=rank).wait()
    MPI.Request.Waitall([comm.Isend(np.full(5000, float(rank)), dest=0, tag=9)])
    comm.send(rank, dest=0, tag=10)
    if rank == 1:
        comm.recv(source=0)
        comm.send("late", dest=0, tag=11)

x = np.arange(4, dtype="d") + rank
y = np.zeros(4)
barrier, reduction = comm.Ibarrier(), comm.Iallreduce(x, y, MPI.SUM)
z = np.full(3000, float(rank))
broadcast = comm.Ibcast(z, root=1)
MPI.Request.Waitall([barrier, reduction, broadcast])
print(y, z[:2])
whole = np.zeros(4 * size)
comm.Iallgather(x, whole).Wait()
print(whole)
part = np.zeros(4)
comm.Iscatter(whole, part, root=0).Wait()
print(part)
comm.Ialltoall(part, x).Wait()
print(x)
back = np.zeros((size, 4)) if rank == 3 else None
comm.Igather(part, back, root=3).Wait()
total = np.zeros(4) if rank == 2 else None
comm.Ireduce(part, total, root=2).Wait()
print(back, total)
