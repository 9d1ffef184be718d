/* Waiting a moment without sleeping, where a core is free for it.

   A rank that waits for another spins for about as long as a sleep and a wake-up would cost, so that waiting costs at
   most twice what it must; but not on the processor where the other one was seen last, and only now and then where it
   was in vain before. That is done with the interpreter lock held. */

#include "port.h"
#include "shared.h"

#include <sched.h>

#define SPIN_NS 40000         /* about what a sleep and a wake-up cost, so spinning at most doubles a wait */
#define LONG_SPIN_NS 400000   /* where the peer is at work on what is waited for */
#define MOST_NS 3000000       /* of such waits in one go, with the interpreter lock held */
#define SPIN_LOOKS 64         /* between two looks at the clock */
#define FEW_SPINS 16          /* after that many in vain, only every SELDOM-th wait spins */
#define SELDOM 32
#define MOST_YIELDS 8         /* about what each other rank of a few needs to come to where this one is */
#define YIELD_NS 100000       /* who gets the processor back so late shares it with one that computes */

void
port_note_cpu(Port *self)
{
    uint32_t cpu = (uint32_t)sched_getcpu() + 1; /* 0 is of who was not seen yet */
    if (cpu != self->cpu)
        atomic_store_explicit(&page_of(self, self->rank)->cpu, self->cpu = cpu, memory_order_relaxed);
}

/* Whether who is waited for cannot run since this rank does. */
static bool
is_in_the_way(Port *self, const Ring *ring)
{
    port_note_cpu(self);
    if (ring != NULL)
        return atomic_load_explicit(&page_of(self, ring->peer)->cpu, memory_order_relaxed) == self->cpu;
    for (uint32_t index = 0; index < self->source_count; index++)
        if (atomic_load_explicit(&page_of(self, self->sources[index])->cpu, memory_order_relaxed) == self->cpu)
            return true;
    return false;
}

/* Looks until `ready`, at most for a while; tells whether it came. `spent` is the time between the first and the last
   look at the clock: it costs nothing more to know, and a wait that came to no such look is a short one. */
static bool
look_for(Port *self, Look *ready, Ring *ring, uint64_t while_ns, uint64_t *spent)
{
    uint64_t start = 0;
    for (unsigned looks = 1;; looks++) {
        if (ready(self, ring))
            return true;
        relax();
        if (looks % SPIN_LOOKS == 0) {
            uint64_t now = (uint64_t)monotonic_ns();
            if (start == 0)
                start = now;
            *spent = now - start;
            if (*spent > while_ns || is_in_the_way(self, ring))
                return false;
        }
    }
}

bool
port_spin(Port *self, Look *ready, Ring *ring)
{
    if (!self->spin || (self->vain_spins >= FEW_SPINS && self->skipped_spins++ % SELDOM))
        return false;
    uint64_t spent = 0;
    bool came = look_for(self, ready, ring, SPIN_NS, &spent);
    if (ring != NULL)
        ring->spun_ns += spent;
    if (came)
        self->vain_spins = 0;
    else if (self->vain_spins < FEW_SPINS)
        self->vain_spins++;
    return came;
}

bool
port_stay(Port *self, Look *ready, Ring *ring, uint64_t *end)
{
    if (!self->spin)
        return false;
    uint64_t now = (uint64_t)monotonic_ns(), spent;
    if (*end == 0)
        *end = now + MOST_NS;
    return now < *end && look_for(self, ready, ring, LONG_SPIN_NS, &spent);
}

/* Where ranks share a processor, the one that waits in a collective mostly waits for its turn to run others: to let them
   run costs less than to sleep and be woken. The interpreter lock is not held meanwhile. */
bool
port_yield(Port *self, Ready *ready, const void *what)
{
    if (self->spin || (self->vain_yields >= FEW_SPINS && self->skipped_yields++ % SELDOM))
        return false;
    bool came = false;
    port_enter(self); /* nobody unmaps what is looked at */
    Py_BEGIN_ALLOW_THREADS
    const uint64_t end = (uint64_t)monotonic_ns() + YIELD_NS;
    for (int yields = 0; !came && yields < MOST_YIELDS && (uint64_t)monotonic_ns() < end; yields++) {
        sched_yield();
        came = ready(self, what);
    }
    Py_END_ALLOW_THREADS
    port_exit(self);
    self->vain_yields = came ? 0 : self->vain_yields + (self->vain_yields < FEW_SPINS);
    return came && !self->released;
}
