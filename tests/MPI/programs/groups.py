"""Groups of ranks, and communicators of them."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size

half = comm.Split(color=rank % 2, key=-rank)
print(half.rank, half.size, half.allgather(rank), half.allreduce(rank))
none = comm.Split(MPI.UNDEFINED if rank == 0 else 0, rank)
print(none == MPI.COMM_NULL, bool(none))
if none != MPI.COMM_NULL:
    print(none.Get_rank(), none.Get_size())
    none.Free()
    print(none == MPI.COMM_NULL)

group = comm.Get_group()
odd = group.Incl(range(1, size, 2))
even = group.Excl(range(1, size, 2))
print(odd.Get_size(), odd.Get_rank() == MPI.UNDEFINED, even.rank == MPI.UNDEFINED, even.size)
print(MPI.Group.Translate_ranks(odd, [0, 1], group), odd.Translate_ranks([0, 1], even))
print(MPI.Group.Union(odd, even).Translate_ranks(), MPI.Group.Intersection(odd, even) == MPI.GROUP_EMPTY)
print(MPI.Group.Difference(group, odd).Compare(even), group.Compare(MPI.Group.Union(odd, even)), odd.Compare(even))
print(group.Range_incl([(3, 0, -1)]).Translate_ranks(None, group), group.Range_excl([(0, 1, 1)]).size)
made = comm.Create(odd)
if rank % 2:
    print(made.rank, made.size, made.bcast(rank, root=1))
else:
    print(made == MPI.COMM_NULL)

other = comm.Dup()
print(other.Compare(comm), comm.Compare(comm), half.Compare(comm), comm == MPI.COMM_WORLD, other == comm)
alone = MPI.COMM_SELF
print(alone.rank, alone.size, alone.allreduce(5), comm.name, alone.Get_name())
shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
print(shared.size, shared.rank, comm.Is_intra(), comm.is_inter, comm.topology == MPI.UNDEFINED, comm.is_topo)

grid = comm.Create_cart([2, 2], periods=[True, False])
print(grid.Get_topo(), grid.dims, grid.periods, grid.coords, grid.dim, grid.ndim, grid.Get_cart_rank([1, 0]))
print(grid.Shift(0, 1), grid.topology == MPI.CART, [grid.Get_coords(index) for index in range(4)])
line = grid.Sub([False, True])
print(line.dims, line.coords, line.allgather(rank), line.Dup().Get_topo())
small = comm.Create_cart([3])
print(small == MPI.COMM_NULL)
print(MPI.Compute_dims(12, 3), MPI.Compute_dims(12, [0, 2]), MPI.Compute_dims(4, [0]), MPI.Compute_dims(60, 3))
