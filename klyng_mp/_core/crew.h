/* What the two sides of a pool share: how tasks are written in a batch, and the word that says which may be begun. */

#ifndef KLYNG_MP_CREW_H
#define KLYNG_MP_CREW_H

#include "port.h"

/* What comes before each task in a batch; tasks.py has the twin. */
typedef struct {
    uint32_t size; /* of its head, which follows */
    uint16_t buffers;
    uint8_t code, reserved;
} TaskHeader;

_Static_assert(sizeof(TaskHeader) == 8, "nothing between its words is sent");

/* -- What a worker has ahead -------------------------------------------------------------------------------- */

static inline uint32_t
next_of(uint64_t ahead)
{
    return (uint32_t)ahead;
}

static inline uint32_t
left_of(uint64_t ahead)
{
    return (uint32_t)(ahead >> 32) - next_of(ahead);
}

static inline uint64_t
ahead_of(uint32_t next, uint32_t left)
{
    return (uint64_t)(next + left) << 32 | next;
}

/* Claims the next task and returns its number; false where there is none. */
static inline bool
claim_task(_Atomic uint64_t *word, uint32_t *task)
{
    uint64_t ahead = atomic_load(word);
    while (left_of(ahead) > 0) {
        *task = next_of(ahead);
        if (atomic_compare_exchange_weak(word, &ahead, ahead_of(*task + 1, left_of(ahead) - 1)))
            return true;
    }
    return false;
}

/* Sleeps, unless `ready`, until the bell rings or something else shows at the poller: 0 if the time is over, 1 for the
   bell, 2 for anything else; -1 with an exception. */
int crew_sleep(Port *port, PyObject *args, Look *ready);

#endif
