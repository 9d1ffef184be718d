/* Pi as an integral, in C with MPI: the peer of klyng.py, message for message.
 *
 *     mpiexec -n 4 ./mpi STEPS
 *
 * Rank 0 deals out the interval [0, 1], every rank sums its share, and rank 0 collects the partial
 * sums from whoever has finished. STEPS = 0 sends the same messages and computes nothing. Every rank
 * prints one line that starts with "report" and goes on in JSON.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

double kernel(double from, double to, double dx);

struct share {
    double from, to, dx;
};

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double integrate(int rank, int size, long steps)
{
    struct share share;
    double sum, partial;

    if (rank != 0) {
        MPI_Recv(&share, 3, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        sum = kernel(share.from, share.to, share.dx);
        MPI_Send(&sum, 1, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD);
        return 0.0;
    }
    double end = steps > 0 ? 1.0 : 0.0;
    double dx = steps > 0 ? 1.0 / (double)steps : 1.0;
    for (int other = 1; other < size; other++) {
        share = (struct share){end * other / size, end * (other + 1) / size, dx};
        MPI_Send(&share, 3, MPI_DOUBLE, other, 0, MPI_COMM_WORLD);
    }
    sum = kernel(0.0, end / size, dx);
    for (int other = 1; other < size; other++) {
        MPI_Recv(&partial, 1, MPI_DOUBLE, MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        sum += partial;
    }
    return sum * dx;
}

int main(int argc, char **argv)
{
    int rank, size;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc < 2) {
        fprintf(stderr, "usage: mpiexec -n N %s STEPS\n", argv[0]);
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    long steps = atol(argv[1]);

    double entered = cpu_seconds();
    double result = integrate(rank, size, steps);
    double left = cpu_seconds();

    char said[32] = "null";
    if (rank == 0) {
        snprintf(said, sizeof said, "%.17g", result);
    }
    /* One call: mpiexec may put another rank's output between two. */
    printf("report {\"rank\": %d, \"size\": %d, \"startup_cpu\": %.6f, \"task_cpu\": %.6f, \"result\": %s}\n", rank,
           size, entered, left - entered, said);
    MPI_Finalize();
    return 0;
}
