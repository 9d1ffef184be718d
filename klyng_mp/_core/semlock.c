/* SemLock: the standard library's primitive of the same name, which also knows who holds it and notices their death.

   One page of shared memory each:

       magic, flags, maxvalue     written once, by who makes it
       word      a lock's holder (shared.h's Identity) and two bits, or 0 where it is free
       value     a semaphore's permits that are to be had
       waiters   how many sleep; too many once one was killed asleep, which costs others a system call and no more.
                 And where who released it last ran
       capacity  a semaphore's permits altogether
       nobodys   not 0 once a semaphore's permits belong to nobody
       holdings  (process, permits that it has taken and not given back), one for each process that took any

   A lock (of one permit) is taken by writing the own identity over 0, and given back by writing 0 over it, whoever does
   it: as in the standard library any process may release a Lock. So no moment is without an owner. Who waits looks now
   and then whether the holder lives. If not, it sets BROKEN, which stays: what the lock guards may be half-written, and
   only the program knows. A process that ends by itself sets LEFT in what it holds; such a lock is only held for ever,
   as in the standard library, and only who would wait for it for ever learns that.

   A semaphore's process counts a permit up in its holding before it takes it, and down after it has given it back. A
   kill in between leaves one too many and never one too few, so the dead have permits exactly if the living do not
   account for all that are missing. Only who finds the value 0 asks. Who holds nothing and releases either puts back
   what a dead process had, or shows that the semaphore is used as a signal, with permits that are taken by one process
   and given back by another; then they belong to nobody from then on, and it is never broken. If nobody holds any, it
   adds one. What starts with 0 is a signal from the first.

   All changes of word, value and waiters are sequentially consistent: who is about to sleep counts itself and then has
   the kernel look at the word; who changes the word looks at the count thereafter. What a process holds is written by it
   alone, with a release, and by others once it is dead.

   `count` and `thread` are of this process, as in the standard library: what it has taken through this object, less what
   it has given back, and by which thread last. A fork makes them 0; it is noticed by the identity. */

#include "semlock.h"

#include <limits.h>

#define MAGIC 0x6b6d736cu /* "kmsl" */
#define PAGE 4096
#define HOLDINGS ((PAGE - sizeof(Page)) / sizeof(Holding)) /* further processes' permits are not counted */
#define GLANCE_NS 100000000 /* who only tries need not look more often */

enum { BROKEN = 1, LEFT = 2 }; /* bits of a lock's word */

int
semlock_make(SemLock *self, int value, int maxvalue, bool travels, bool owned)
{
    if (shared_make(&self->shared, PAGE, travels) < 0)
        return -1;
    Page *page = self->page = self->shared.base;
    const bool lock = owned && value == 1 && maxvalue == 1;
    page->maxvalue = maxvalue;
    page->flags = lock ? IS_LOCK : owned && value > 0 ? IS_COUNTED : 0;
    atomic_store(&page->value, (uint32_t)value);
    atomic_store(&page->capacity, (uint32_t)value);
    page->magic = MAGIC;
    return 0;
}

int
semlock_open(SemLock *self, int fd)
{
    if (shared_open(&self->shared, fd, PAGE, MAGIC) < 0)
        return -1;
    self->page = self->shared.base;
    return 0;
}

static inline bool
is_counted(const SemLock *self)
{
    return (self->page->flags & IS_COUNTED) && !atomic_load_explicit(&self->page->nobodys, memory_order_relaxed);
}

/* Forgets what was the parent's. */
void
semlock_notice_fork(SemLock *self)
{
    const Identity process = identity();
    if (self->process != process) {
        self->process = process;
        self->count = 0;
        self->left = self->uncounted = false;
        self->holding = NULL;
    }
}

bool
semlock_is_mine(SemLock *self)
{
    semlock_notice_fork(self);
    return self->count > 0 && self->thread == PyThread_get_thread_ident();
}

/* -- What is broken ----------------------------------------------------------------------------------------- */

static int
raise_broken(SemLock *self, Identity holder, bool left)
{
    PyObject *errors = PyImport_ImportModule("klyng_mp.errors");
    if (errors == NULL)
        return -1;
    PyObject *type = PyObject_GetAttrString(errors, "BrokenLockError");
    Py_DECREF(errors);
    if (type == NULL)
        return -1;
    PyObject *error = PyObject_CallFunction(type, "OiO", self->label, (int)pid_of(holder), left ? Py_True : Py_False);
    if (error != NULL)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_DECREF(type);
    return -1;
}

static int
look_at_holder(SemLock *self, bool for_ever)
{
    _Atomic uint64_t *word = &self->page->word;
    uint64_t seen = atomic_load(word);
    if (seen == 0 || (!(seen & BROKEN) && is_alive(seen)))
        return 0;
    if (seen & BROKEN)
        return raise_broken(self, seen, false);
    if (seen & LEFT)
        return for_ever ? raise_broken(self, seen, true) : 0;
    if (!atomic_compare_exchange_strong(word, &seen, seen | BROKEN))
        return 0; /* somebody else found the same, or released it */
    wake(half_of(word), INT_MAX);
    return raise_broken(self, seen, false);
}

/* Returns a dead process that has permits which the living do not account for, or 0. */
static Identity
find_dead_holder(SemLock *self)
{
    Identity dead = 0;
    int64_t held = 0;
    for (size_t index = 0; index < HOLDINGS; index++) {
        Holding *holding = &self->page->holdings[index];
        const Identity who = atomic_load(&holding->who);
        const int32_t count = atomic_load(&holding->count);
        if (who == 0 || count <= 0)
            continue;
        if (is_alive(who))
            held += count;
        else
            dead = who;
    }
    const int64_t missing = (int64_t)atomic_load(&self->page->capacity) - atomic_load(&self->page->value);
    return missing > held ? dead : 0;
}

static int
look_at_holders(SemLock *self)
{
    /* Twice, since the living may have changed what was added up. */
    if (!is_counted(self) || find_dead_holder(self) == 0)
        return 0;
    const Identity dead = find_dead_holder(self);
    if (dead == 0 || atomic_load(&self->page->value) != 0)
        return 0;
    return raise_broken(self, dead, false);
}

/* What who could not have it does now and then: 0, or -1 with BrokenLockError. */
static int
look_at_others(SemLock *self, bool for_ever)
{
    return is_lock(self) ? look_at_holder(self, for_ever) : look_at_holders(self);
}

static int
glance_at_others(SemLock *self, bool for_ever)
{
    if (is_lock(self) && (atomic_load_explicit(&self->page->word, memory_order_relaxed) & BROKEN))
        return look_at_holder(self, for_ever);
    const int64_t now = monotonic_ns();
    if (now < self->next_glance)
        return 0;
    self->next_glance = now + GLANCE_NS;
    return look_at_others(self, for_ever);
}

/* -- Holdings ----------------------------------------------------------------------------------------------- */

static Holding *
claim_holding(SemLock *self, Identity me)
{
    Holding *holdings = self->page->holdings;
    for (size_t index = 0; index < HOLDINGS; index++)
        if (atomic_load(&holdings[index].who) == me)
            return &holdings[index];
    for (size_t index = 0; index < HOLDINGS; index++) {
        Identity nobody = 0;
        if (atomic_compare_exchange_strong(&holdings[index].who, &nobody, me))
            return &holdings[index];
    }
    for (size_t index = 0; index < HOLDINGS; index++) { /* of who was killed and held nothing */
        Identity who = atomic_load(&holdings[index].who);
        if (atomic_load(&holdings[index].count) == 0 && !is_alive(who) &&
            atomic_compare_exchange_strong(&holdings[index].who, &who, me))
            return &holdings[index];
    }
    return NULL;
}

static Holding *
find_own_holding(SemLock *self)
{
    if (!is_counted(self) || self->left || self->uncounted)
        return NULL;
    self->holding = claim_holding(self, self->process);
    self->uncounted = self->holding == NULL;
    return self->holding;
}

/* What this process holds is counted there; NULL where it is not counted. */
static inline Holding *
own_holding(SemLock *self)
{
    return self->holding != NULL ? self->holding : find_own_holding(self);
}

/* Adds to what this process holds. Only its threads write there, with the interpreter lock, while it lives. */
static inline void
add_own(Holding *holding, int32_t more)
{
    const int32_t count = atomic_load_explicit(&holding->count, memory_order_relaxed);
    atomic_store_explicit(&holding->count, count + more, memory_order_release);
}

/* Takes a permit off what a dead process held, if there is one. */
static bool
take_from(Holding *holding)
{
    int32_t count = atomic_load(&holding->count);
    while (count > 0)
        if (atomic_compare_exchange_weak(&holding->count, &count, count - 1))
            return true;
    return false;
}

static void
settle_strangers_release(SemLock *self)
{
    bool anybody = false;
    for (size_t index = 0; index < HOLDINGS; index++) {
        Holding *holding = &self->page->holdings[index];
        const Identity who = atomic_load(&holding->who);
        if (who == 0 || atomic_load(&holding->count) <= 0)
            continue;
        anybody = true;
        if (!is_alive(who) && take_from(holding))
            return;
    }
    if (anybody)
        atomic_store(&self->page->nobodys, 1);
    else
        atomic_fetch_add(&self->page->capacity, 1);
}

/* -- Taking ------------------------------------------------------------------------------------------------- */

static inline bool
try_lock(SemLock *self)
{
    uint64_t free = 0;
    const uint64_t mine = self->process | (self->left ? LEFT : 0);
    return atomic_compare_exchange_strong(&self->page->word, &free, mine);
}

static bool
try_permit(SemLock *self)
{
    uint32_t value = atomic_load(&self->page->value);
    if (value == 0)
        return false;
    Holding *holding = own_holding(self);
    if (holding != NULL)
        add_own(holding, 1);
    while (value > 0)
        if (atomic_compare_exchange_weak(&self->page->value, &value, value - 1))
            return true;
    if (holding != NULL)
        add_own(holding, -1);
    return false;
}

static inline bool
try_once(SemLock *self)
{
    return is_lock(self) ? try_lock(self) : try_permit(self);
}

/* Wakes another one instead of this thread, which may have been woken and does not take it. */
static void
pass_on(SemLock *self)
{
    Page *page = self->page;
    const bool is_free = is_lock(self) ? atomic_load(&page->word) == 0 : atomic_load(&page->value) > 0;
    if (is_free && atomic_load(&page->waiters.count) > 0)
        wake(is_lock(self) ? half_of(&page->word) : &page->value, 1);
}

/* Waits until it is had; 1, or 0 when it is too late, or -1 with an exception. */
static int
wait_for_it(SemLock *self, int64_t until)
{
    Page *page = self->page;
    const bool for_ever = until == FOREVER;
    if (glance_at_others(self, for_ever) < 0)
        return -1;
    for (;;) {
        const uint64_t seen = is_lock(self) ? atomic_load(&page->word) : 0;
        if (is_lock(self) && (seen & BROKEN))
            return raise_broken(self, seen, false);
        if (try_once(self))
            return 1;
        _Atomic uint32_t *word = is_lock(self) ? half_of(&page->word) : &page->value;
        if (is_lock(self) && seen == 0)
            continue; /* it was free, and then not */
        switch (look_and_sleep_on(word, (uint32_t)seen, &page->waiters, &self->patience, until)) {
        case LOOK_AGAIN:
            break;
        case TIME_TO_LOOK:
            if (look_at_others(self, for_ever) < 0)
                return -1;
            break;
        case TOO_LATE:
            return 0;
        case INTERRUPTED:
            pass_on(self);
            return -1;
        }
    }
}

PyObject *
semlock_take(SemLock *self, bool block, PyObject *timeout)
{
    semlock_notice_fork(self);
    const unsigned long thread = PyThread_get_thread_ident();
    if (self->kind == RECURSIVE_MUTEX && self->count > 0 && self->thread == thread) {
        self->count++;
        Py_RETURN_TRUE;
    }
    int64_t until = FOREVER;
    if (timeout != Py_None && read_deadline(timeout, &until) < 0)
        return NULL;
    int got = try_once(self);
    if (!got && block)
        got = wait_for_it(self, until);
    if (got == 0 && glance_at_others(self, false) == 0)
        Py_RETURN_FALSE;
    if (got <= 0)
        return NULL;
    self->count++;
    self->thread = thread;
    Py_RETURN_TRUE;
}

/* -- Giving back -------------------------------------------------------------------------------------------- */

static int
say_too_often(void)
{
    PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
    return -1;
}

static int
give_lock(SemLock *self)
{
    Page *page = self->page;
    uint64_t seen = atomic_load(&page->word);
    note_cpu(&page->waiters);
    do {
        if (seen == 0)
            return say_too_often();
        if (seen & BROKEN)
            return raise_broken(self, seen, false);
    } while (!atomic_compare_exchange_weak(&page->word, &seen, 0));
    if (atomic_load(&page->waiters.count) > 0)
        wake(half_of(&page->word), 1);
    return 0;
}

static int
give_permit(SemLock *self)
{
    Page *page = self->page;
    uint32_t value = atomic_load(&page->value);
    note_cpu(&page->waiters);
    do {
        if (value >= (uint32_t)page->maxvalue)
            return say_too_often();
    } while (!atomic_compare_exchange_weak(&page->value, &value, value + 1));
    Holding *holding = own_holding(self);
    if (holding != NULL && atomic_load_explicit(&holding->count, memory_order_relaxed) > 0)
        add_own(holding, -1);
    else if (is_counted(self) && !self->left)
        settle_strangers_release(self);
    if (atomic_load(&page->waiters.count) > 0)
        wake(&page->value, 1);
    return 0;
}

PyObject *
semlock_give(SemLock *self)
{
    semlock_notice_fork(self);
    if (self->kind == RECURSIVE_MUTEX) {
        if (!semlock_is_mine(self)) {
            PyErr_SetString(PyExc_AssertionError, "attempt to release recursive lock not owned by thread");
            return NULL;
        }
        if (self->count > 1) {
            self->count--;
            Py_RETURN_NONE;
        }
    }
    if ((is_lock(self) ? give_lock(self) : give_permit(self)) < 0)
        return NULL;
    self->count--;
    Py_RETURN_NONE;
}

void
semlock_leave(SemLock *self, bool ended)
{
    semlock_notice_fork(self);
    if (is_lock(self)) {
        uint64_t mine = self->process;
        atomic_compare_exchange_strong(&self->page->word, &mine, mine | LEFT);
    }
    else if (self->holding != NULL) {
        atomic_store(&self->holding->count, 0);
        if (ended)
            atomic_store(&self->holding->who, 0);
        self->holding = NULL;
    }
    self->left = ended;
}
