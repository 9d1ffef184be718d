/* What the machine itself takes, below any library: seconds of one operation, printed as one number.
 *
 *     limits memcpy BYTES COUNT        copying BYTES
 *     limits hop PROCESSES LAPS        one hop of a token round PROCESSES processes, an eventfd each
 *     limits line COUNT CPU CPU        a cache line to another CPU and back, both spinning
 *     limits barrier PROCESSES COUNT   a barrier of PROCESSES processes, who sleep on a futex
 */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCESSES = 256, CACHE_LINE = 64, WARM_UP = 10 /* one part in so many */ };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Fork; the child ends with its parent, so that an interrupted measurement leaves nothing that spins. */
static pid_t fork_bound(void)
{
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
        _exit(1);
    return child;
}

static void wait_for_children(void)
{
    int status;
    while (wait(&status) > 0)
        if (status) {
            fprintf(stderr, "a process of the measurement failed\n");
            exit(1);
        }
}

static double copy(size_t bytes, long count)
{
    unsigned char *source = malloc(bytes), *target = malloc(bytes);
    if (!source || !target)
        fail("malloc");
    memset(source, 1, bytes);
    memset(target, 2, bytes);
    double started = now();
    for (long turn = 0; turn < count; turn++) {
        memcpy(target, source, bytes);
        atomic_signal_fence(memory_order_seq_cst); /* else the compiler makes one copy of all of them */
        source[turn % (long)bytes] ^= target[(turn * CACHE_LINE) % (long)bytes];
    }
    double took = now() - started;
    free(source);
    free(target);
    return took / (double)count;
}

/* Take the token `laps` times from one eventfd and give it to another. */
static void pass(int from, int to, long laps)
{
    uint64_t token = 1;
    for (long lap = 0; lap < laps; lap++)
        if (read(from, &token, sizeof token) != sizeof token || write(to, &token, sizeof token) != sizeof token)
            fail("eventfd");
}

/* The first process gives before it takes. */
static void lead(int from, int to, long laps)
{
    uint64_t token = 1;
    for (long lap = 0; lap < laps; lap++)
        if (write(to, &token, sizeof token) != sizeof token || read(from, &token, sizeof token) != sizeof token)
            fail("eventfd");
}

static double hop(int processes, long laps)
{
    int fds[MAX_PROCESSES];
    long warm = laps / WARM_UP + 1;
    for (int place = 0; place < processes; place++)
        if ((fds[place] = eventfd(0, 0)) < 0)
            fail("eventfd");
    for (int place = 1; place < processes; place++)
        if (fork_bound() == 0) {
            pass(fds[place], fds[(place + 1) % processes], warm + laps);
            _exit(0);
        }
    lead(fds[0], fds[1], warm);
    double started = now();
    lead(fds[0], fds[1], laps);
    double took = now() - started;
    wait_for_children();
    return took / (double)laps / processes;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Wait until the line holds an odd (or even) number and count on, until it holds `end`. */
static void volley(_Atomic long *line, long parity, long end)
{
    for (long value = parity; value < end; value += 2) {
        while (atomic_load_explicit(line, memory_order_acquire) != value)
            pause_cpu();
        atomic_store_explicit(line, value + 1, memory_order_release);
    }
}

/* Return a page of zeros that the processes forked from now on share. */
static void *shared_page(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        fail("mmap");
    return page;
}

static double round_trip(long count, int mine, int other)
{
    _Atomic long *line = shared_page();
    long warm = 2 * (count / WARM_UP + 1), end = warm + 2 * count;
    if (fork_bound() == 0) {
        pin(other);
        volley(line, 1, end);
        _exit(0);
    }
    pin(mine);
    volley(line, 0, warm);
    double started = now();
    volley(line, warm, end);
    double took = now() - started;
    wait_for_children();
    return took / (double)count;
}

/* The last to arrive begins the next generation and wakes the others, who sleep on its number. */
struct barrier {
    _Alignas(CACHE_LINE) _Atomic uint32_t arrived;
    _Alignas(CACHE_LINE) _Atomic uint32_t generation;
};

/* Not FUTEX_PRIVATE_FLAG: the processes share a mapping, not an address space. */
static long futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void meet(struct barrier *barrier, uint32_t processes)
{
    uint32_t mine = atomic_load_explicit(&barrier->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1 == processes) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->generation, mine + 1, memory_order_release);
        if (futex(&barrier->generation, FUTEX_WAKE, INT_MAX) < 0)
            fail("FUTEX_WAKE");
        return;
    }
    while (atomic_load_explicit(&barrier->generation, memory_order_acquire) == mine)
        if (futex(&barrier->generation, FUTEX_WAIT, mine) < 0 && errno != EAGAIN && errno != EINTR)
            fail("FUTEX_WAIT");
}

static void meet_often(struct barrier *barrier, int processes, long count)
{
    for (long turn = 0; turn < count; turn++)
        meet(barrier, (uint32_t)processes);
}

static double barrier_of(int processes, long count)
{
    struct barrier *barrier = shared_page();
    long warm = count / WARM_UP + 1;
    for (int place = 1; place < processes; place++)
        if (fork_bound() == 0) {
            meet_often(barrier, processes, warm + count);
            _exit(0);
        }
    meet_often(barrier, processes, warm);
    double started = now();
    meet_often(barrier, processes, count);
    double took = now() - started;
    wait_for_children();
    return took / (double)count;
}

int main(int argc, char **argv)
{
    double took;
    if (argc == 4 && !strcmp(argv[1], "memcpy") && atol(argv[2]) > 0 && atol(argv[3]) > 0)
        took = copy((size_t)atol(argv[2]), atol(argv[3]));
    else if (argc == 4 && !strcmp(argv[1], "hop") && atoi(argv[2]) > 1 && atoi(argv[2]) <= MAX_PROCESSES)
        took = hop(atoi(argv[2]), atol(argv[3]));
    else if (argc == 5 && !strcmp(argv[1], "line"))
        took = round_trip(atol(argv[2]), atoi(argv[3]), atoi(argv[4]));
    else if (argc == 4 && !strcmp(argv[1], "barrier") && atoi(argv[2]) > 1 && atoi(argv[2]) <= MAX_PROCESSES)
        took = barrier_of(atoi(argv[2]), atol(argv[3]));
    else {
        fprintf(stderr, "usage: limits memcpy BYTES COUNT | hop PROCESSES LAPS | line COUNT CPU CPU"
                        " | barrier PROCESSES COUNT\n");
        return 2;
    }
    printf("%.12g\n", took);
    return 0;
}
