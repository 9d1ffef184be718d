/* Primes by trial division, in C with MPI: the peer of klyng.py, message for message.
 *
 *     mpiexec -n 4 ./mpi LIMIT
 *
 * Rank 0 tells every rank its block of [0, LIMIT), every rank counts its primes, and rank 0 collects
 * the counts from whoever has finished. LIMIT = 0 sends the same messages and computes nothing. Every
 * rank prints one line that starts with "report" and goes on in JSON.
 */
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int64_t kernel(int64_t from, int64_t to);

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int64_t count_primes(int rank, int size, int64_t limit)
{
    int64_t block[2], count, partial;

    if (rank != 0) {
        MPI_Recv(block, 2, MPI_INT64_T, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        count = kernel(block[0], block[1]);
        MPI_Send(&count, 1, MPI_INT64_T, 0, 0, MPI_COMM_WORLD);
        return 0;
    }
    for (int other = 1; other < size; other++) {
        block[0] = other * limit / size; /* multiplied first: no number falls between two blocks */
        block[1] = (other + 1) * limit / size;
        MPI_Send(block, 2, MPI_INT64_T, other, 0, MPI_COMM_WORLD);
    }
    count = kernel(0, limit / size);
    for (int other = 1; other < size; other++) {
        MPI_Recv(&partial, 1, MPI_INT64_T, MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        count += partial;
    }
    return count;
}

int main(int argc, char **argv)
{
    int rank, size;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc < 2) {
        fprintf(stderr, "usage: mpiexec -n N %s LIMIT\n", argv[0]);
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    int64_t limit = atoll(argv[1]);

    double entered = cpu_seconds();
    int64_t result = count_primes(rank, size, limit);
    double left = cpu_seconds();

    char said[32] = "null";
    if (rank == 0) {
        snprintf(said, sizeof said, "%" PRId64, result);
    }
    /* One call: mpiexec may put another rank's output between two. */
    printf("report {\"rank\": %d, \"size\": %d, \"startup_cpu\": %.6f, \"task_cpu\": %.6f, \"result\": %s}\n", rank,
           size, entered, left - entered, said);
    MPI_Finalize();
    return 0;
}
