/* What locks are made of: memory that processes share, who a process is and whether it lives, and sleeping.

   Memory is anonymous where only forks share it: then it needs no descriptor, and a program may have thousands of locks.
   Otherwise it is a memfd, whose descriptor is handed to the other processes. Neither has a name, so nothing can be left
   behind. Each lock has its own, since only the kernel knows when the last process that has it is gone.

   A process is known by its number and the time when it was started, which fit into one word: so a lock is taken, and
   says by whom, in one step, and no kill can come between. The own identity is read once in a process; a fork forgets
   it, also one that Python does not know of. That is the one thing here that is the process's and not the module's.

   Who sleeps wakes up now and then and looks whether the process that it waits for lives. The same look helps where a
   process was killed that had just been woken, and so had to wake nobody else any more. */

#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Before it sleeps, a process looks for about as long as a sleep and a wake-up cost, so that waiting costs at most twice
   what it must; as in spin.c, but without the interpreter lock. */
#define SPIN_NS 40000
#define SPIN_LOOKS 64 /* between two looks at the clock */
#define FEW_SPINS 16  /* after that many in vain, only every SELDOM-th sleep begins like that */
#define SELDOM 32

/* -- Memory ------------------------------------------------------------------------------------------------- */

static int
map(Shared *self, size_t size, int flags)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | flags, self->fd, 0);
    if (base == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        shared_close(self);
        return -1;
    }
    self->base = base;
    self->size = size;
    return 0;
}

int
shared_make(Shared *self, size_t size, bool travels)
{
    *self = (Shared){.fd = -1};
    if (!travels)
        return map(self, size, MAP_ANONYMOUS);
    self->fd = memfd_create("klyng_mp lock", MFD_CLOEXEC);
    if (self->fd < 0 || ftruncate(self->fd, (off_t)size) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        shared_close(self);
        return -1;
    }
    return map(self, size, 0);
}

int
shared_open(Shared *self, int fd, size_t size, uint32_t magic)
{
    struct stat status;
    *self = (Shared){.fd = fd};
    if (fstat(fd, &status) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        shared_close(self);
        return -1;
    }
    if ((uint64_t)status.st_size == size) {
        if (map(self, size, 0) < 0)
            return -1;
        if (*(const uint32_t *)self->base == magic)
            return 0;
    }
    PyErr_Format(PyExc_ValueError, "descriptor %d is not of such a lock", fd);
    shared_close(self);
    return -1;
}

void
shared_close(Shared *self)
{
    if (self->base != NULL)
        munmap(self->base, self->size);
    if (self->fd >= 0)
        close(self->fd);
    *self = (Shared){.fd = -1};
}

PyObject *
shared_handle(const Shared *self)
{
    return self->fd < 0 ? PyLong_FromVoidPtr(self->base) : PyLong_FromLong(self->fd);
}

/* -- Who ---------------------------------------------------------------------------------------------------- */

_Atomic Identity own_identity;

/* What /proc tells of a process: its state, how many threads it has, and its start time. */
typedef struct {
    char state;
    long threads;
    unsigned long long start;
} Status;

static bool
read_status(pid_t pid, Status *status)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    const char *rest = strrchr(text, ')'); /* a program's name may have anything in it, also this */
    return rest != NULL && sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
                                  &status->state, &status->threads, &status->start) == 3;
}

static Identity
identity_of(pid_t pid, unsigned long long start)
{
    return (Identity)start << (PID_BITS + FLAG_BITS) | (Identity)(uint32_t)pid << FLAG_BITS;
}

Identity
find_own_identity(void)
{
    const pid_t pid = getpid();
    Status status;
    const Identity own = identity_of(pid, read_status(pid, &status) ? status.start : 0);
    atomic_store_explicit(&own_identity, own, memory_order_relaxed);
    return own;
}

bool
is_alive(Identity who)
{
    who &= ~FLAGS;
    const pid_t pid = pid_of(who);
    if (who == identity())
        return true;
    if (kill(pid, 0) < 0 && errno == ESRCH)
        return false;
    Status status;
    if (!read_status(pid, &status))
        return kill(pid, 0) == 0 || errno != ESRCH; /* it may have gone between the two */
    /* The first thread of a process may have ended before the others. */
    const bool ended = (status.state == 'Z' || status.state == 'X' || status.state == 'x') && status.threads <= 1;
    const Identity now = identity_of(pid, status.start), unknown = identity_of(pid, 0);
    return !ended && (who == now || who == unknown);
}

static void
forget_own_identity(void)
{
    atomic_store_explicit(&own_identity, 0, memory_order_relaxed);
}

static void
watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget_own_identity);
}

int
shared_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    return 0;
}

/* -- Sleeping ----------------------------------------------------------------------------------------------- */

int64_t
monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int
read_deadline(PyObject *timeout, int64_t *until)
{
    *until = FOREVER;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0)) /* also what is no number */
        *until = monotonic_ns();
    else if (seconds < 1e9)
        *until = monotonic_ns() + (int64_t)ceil(seconds * 1e9);
    return 0;
}

int
read_int(PyObject *object, int *value)
{
    const long found = PyLong_AsLong(object);
    if (found == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
    }
    else if (found == (int)found) {
        *value = (int)found;
        return 0;
    }
    PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
    return -1;
}

int
read_flag(PyObject *object, int *value)
{
#if PY_VERSION_HEX < 0x030C0000
    return read_int(object, value);
#else
    *value = PyObject_IsTrue(object);
    return *value < 0 ? -1 : 0;
#endif
}

/* Half of the words that processes sleep on are those of an identity, whose lower half changes whenever it does. */
static int
futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *timeout)
{
    return (int)syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

/* Looks for a while whether the word changes, unless who will change it needs this processor; tells whether it did. */
static bool
look_for_change(_Atomic uint32_t *word, uint32_t expected, uint32_t cpu, Patience *patience)
{
    if (cpu == 0 || cpu == (uint32_t)sched_getcpu() + 1)
        return false;
    if (patience->rest > 0) {
        patience->rest--;
        return false;
    }
    const int64_t end = monotonic_ns() + SPIN_NS;
    for (unsigned looks = 1;; looks++) {
        if (atomic_load_explicit(word, memory_order_relaxed) != expected) {
            patience->vain = 0;
            return true;
        }
        relax();
        if (looks % SPIN_LOOKS == 0 && monotonic_ns() > end)
            break;
    }
    if (++patience->vain >= FEW_SPINS)
        patience->rest = SELDOM;
    return false;
}

/* As look_and_sleep_on, where `cpu` is not 0. */
static Awakening
sleep_here(_Atomic uint32_t *word, uint32_t expected, _Atomic uint32_t *sleepers, int64_t until, uint32_t cpu,
           Patience *patience)
{
    int64_t left = LOOK_NS;
    if (until != FOREVER) {
        const int64_t until_then = until - monotonic_ns();
        if (until_then <= 0)
            return TOO_LATE;
        if (until_then < left)
            left = until_then;
    }
    const struct timespec timeout = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
    if (!look_for_change(word, expected, cpu, patience)) {
        /* Seen by whoever changes the word, or else the kernel sees the change: both are in one order. */
        atomic_fetch_add(sleepers, 1);
        if (futex(word, FUTEX_WAIT, expected, &timeout) < 0)
            error = errno;
        atomic_fetch_sub(sleepers, 1);
    }
    Py_END_ALLOW_THREADS
    if (PyErr_CheckSignals() < 0)
        return INTERRUPTED;
    return error == ETIMEDOUT ? TIME_TO_LOOK : LOOK_AGAIN;
}

Awakening
sleep_on(_Atomic uint32_t *word, uint32_t expected, _Atomic uint32_t *sleepers, int64_t until)
{
    return sleep_here(word, expected, sleepers, until, 0, NULL);
}

Awakening
look_and_sleep_on(_Atomic uint32_t *word, uint32_t expected, Sleepers *sleepers, Patience *patience, int64_t until)
{
    const uint32_t cpu = atomic_load_explicit(&sleepers->cpu, memory_order_relaxed), own = (uint32_t)sched_getcpu() + 1;
    if (cpu == 0)
        atomic_store_explicit(&sleepers->cpu, own, memory_order_relaxed); /* asked for: to be told next time */
    return sleep_here(word, expected, &sleepers->count, until, cpu, patience);
}

int
wake(_Atomic uint32_t *word, int most)
{
    const int woken = futex(word, FUTEX_WAKE, (uint32_t)most, NULL);
    return woken < 0 ? 0 : woken;
}
