"""What a program asks of its surroundings."""

from mpi4py import MPI

print(MPI.Is_initialized(), MPI.Is_finalized(), MPI.Query_thread() == MPI.THREAD_MULTIPLE, MPI.Is_thread_main())
begin = MPI.Wtime()
print(MPI.Wtime() >= begin, 0 < MPI.Wtick() < 1, len(MPI.Get_processor_name()) <= MPI.MAX_PROCESSOR_NAME)
print(MPI.Get_version() >= (3, 0), bool(MPI.Get_library_version()))
print(MPI.COMM_WORLD.Get_attr(MPI.TAG_UB) >= 32767, MPI.DOUBLE.Get_size(), MPI.INT.size, MPI.DOUBLE.Get_extent())
print(MPI.DOUBLE.Get_name(), MPI.INT.name, MPI._typedict["d"].Get_name(), MPI.FLOAT.tocode())
MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_RETURN)
try:
    MPI.COMM_NULL.Get_rank()
except MPI.Exception:
    print("no ranks")
