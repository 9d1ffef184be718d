/* Memory that processes share, who they are, and how they sleep on its words (shared.c): what locks are made of. */

#ifndef KLYNG_MP_SHARED_H
#define KLYNG_MP_SHARED_H

#include "core.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* -- Memory ------------------------------------------------------------------------------------------------- */

typedef struct {
    void *base; /* NULL before it is there */
    size_t size;
    int fd; /* of the memfd, or -1: then only forks share it */
} Shared;

/* Makes memory full of zeros that forks share, and, where it `travels`, whoever gets its descriptor; 0, or -1 with an
   exception. */
int shared_make(Shared *self, size_t size, bool travels);
/* Maps memory of somebody else's, which must begin with `magic`. Keeps the descriptor; closes it where it fails. */
int shared_open(Shared *self, int fd, size_t size, uint32_t magic);
void shared_close(Shared *self);
/* What `handle` is: the descriptor, or the address, which is as good for telling two apart. */
PyObject *shared_handle(const Shared *self);

/* -- Who ---------------------------------------------------------------------------------------------------- */

/* A process: start time, 40 bits | pid, 22 bits | 2 bits for whoever keeps it in a word. 0 is nobody. The time keeps
   a process apart from a later one with its number; it is in ticks of the clock since the machine was started. */
typedef uint64_t Identity;

#define FLAG_BITS 2
#define FLAGS ((UINT64_C(1) << FLAG_BITS) - 1)
#define PID_BITS 22 /* Linux has no higher numbers */

static inline pid_t
pid_of(Identity who)
{
    return (pid_t)((who >> FLAG_BITS) & ((1u << PID_BITS) - 1));
}

extern _Atomic Identity own_identity; /* 0 where it is not known yet, as in a process that was just forked */

Identity find_own_identity(void);

/* This process; costs no system call but the first time. */
static inline Identity
identity(void)
{
    const Identity own = atomic_load_explicit(&own_identity, memory_order_relaxed);
    return own != 0 ? own : find_own_identity();
}

/* Whether a process runs; a zombie does not. Where /proc tells nothing, whoever has its number is taken for it. */
bool is_alive(Identity who);

int shared_setup(void);

/* -- Sleeping ----------------------------------------------------------------------------------------------- */

#define LOOK_NS 400000000 /* between two looks at whether the others live: a fifth of what is promised */
#define FOREVER INT64_MAX

/* The half of a word that the kernel can sleep on: the lower one. */
static inline _Atomic uint32_t *
half_of(_Atomic uint64_t *word)
{
    return (_Atomic uint32_t *)word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

int64_t monotonic_ns(void);

/* When a wait has to be over: a number of seconds, below 0 as 0, or None for never; 0, or -1 with an exception. */
int read_deadline(PyObject *timeout, int64_t *until);

/* An int as the standard's locks take it; 0, or -1 with their exception. */
int read_int(PyObject *object, int *value);
/* acquire's first argument. */
int read_flag(PyObject *object, int *value);

typedef enum { LOOK_AGAIN, TIME_TO_LOOK, TOO_LATE, INTERRUPTED } Awakening;

/* Beside a word that is slept on, in the same memory. */
typedef struct {
    _Atomic uint32_t count; /* who changes the word wakes only if it is not 0 */
    _Atomic uint32_t cpu;   /* where who changed it last ran, and 1; 0 until somebody waits, who asks for it */
} Sleepers;

/* To be called by who changes the word, before it does. */
static inline void
note_cpu(Sleepers *sleepers)
{
    if (atomic_load_explicit(&sleepers->cpu, memory_order_relaxed) != 0)
        atomic_store_explicit(&sleepers->cpu, (uint32_t)sched_getcpu() + 1, memory_order_relaxed);
}

/* What a process remembers of whether it is of use to look for a while before it sleeps. */
typedef struct {
    unsigned vain; /* times in succession that it was of none */
    unsigned rest; /* sleeps that begin at once until it is tried again */
} Patience;

/* Sleeps while a word is `expected`, without the interpreter lock, and at most until the deadline or the next look at
   the others. `sleepers` is counted up meanwhile: who changes the word wakes only if it is not 0. INTERRUPTED comes
   with the exception of a signal handler. */
Awakening sleep_on(_Atomic uint32_t *word, uint32_t expected, _Atomic uint32_t *sleepers, int64_t until);

/* The same, but looks for a moment first, where who last changed the word ran on another processor. */
Awakening look_and_sleep_on(_Atomic uint32_t *word, uint32_t expected, Sleepers *sleepers, Patience *patience,
                            int64_t until);

/* Wakes at most so many that sleep on a word; returns how many it were. */
int wake(_Atomic uint32_t *word, int most);

#endif
