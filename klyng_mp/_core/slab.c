/* Slabs: pieces of shared memory that carry large buffers from rank to rank with one copy, or none.

   Each rank has a pool in the segment: a table of slabs, and the memory that it is cut into. The sender copies a buffer
   into a slab of its own pool, and sends the slab's number; the receiver's object is the slab itself, until the object
   is collected. Then the slab goes back to the sender's pool with its pages warm, which is the point: to fill fresh
   pages costs several times what the copy costs. Who has a slab, be it received or allocated to be written at its place
   (`klyng_mp.empty`), may give it away, and then nothing is copied at all.

       pool of a rank    [ table: 256 x { word, offset, capacity, holder } ][ data, cut from the front ]

   The word is the number of the slab's use and its state. Every change of it is one compare-and-swap (acq_rel) from
   exactly what was expected, so that whoever comes late, or twice, changes nothing:

       FREE -> HELD, use + 1    the owner, who takes it
       HELD -> GIVEN            who has it, when it gives it to another
       GIVEN -> HELD            its receiver; or its sender, whose message was never sent
       GIVEN -> FREE            the owner, whose message was never sent
       HELD -> FREE             who has it, when its object is collected
       any  -> FREE             the owner, when who has it is gone

   A slab that is filled is sent before: its number first, then the bytes, and the end of the message last. So a receiver
   that sleeps wakes up while they are copied.

   `holder` and its incarnation say who has it, in one word of their own. The owner believes of offset, capacity
   and use only what it remembers itself; the table has them for receivers and for its own successor. A rank that died
   is known by its page's occupant, who is another, or by the end of its connection, after which nothing that is GIVEN to
   it will be received. The owner looks for such slabs when it finds no free one.

   A fork must not share them: the child's writes would show in the parent, and its arrays would change when the sender
   uses the slab again. So the child, before it runs anything else, replaces every slab that is alive by a private copy
   at the same address (`privatize`); the parent waits for that. The child gives nothing back.

   Where no slab is to be had (the pool is full of what receivers keep, or address space is short) the buffer travels in
   pieces like any other. Receivers may keep what they have got for as long as they like. */

#include "port.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FREE, HELD, GIVEN };

/* -- Pools ------------------------------------------------------------------------------------------------ */

/* Returns where a rank's pool is mapped, mapping it if need be; NULL if it cannot be. */
static char *
pool_of(Port *self, uint32_t rank)
{
    if (self->pools[rank] == NULL && self->has_pools && self->fd >= 0) {
        char *base = mmap(NULL, POOL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, pool_offset(self, rank));
        if (base != MAP_FAILED)
            self->pools[rank] = base;
    }
    return self->pools[rank];
}

static SlabEntry *
table_of(char *pool)
{
    return (SlabEntry *)pool;
}

static uint64_t
word_of(uint64_t use, int state)
{
    return use << 2 | (uint64_t)state;
}

/* Takes a slab from one state to another, unless it is not in the one. */
static bool
change(SlabEntry *entry, uint64_t use, int from, int to)
{
    uint64_t expected = word_of(use, from);
    return atomic_compare_exchange_strong(&entry->word, &expected, word_of(use, to));
}

static void
set_holder(SlabEntry *entry, uint32_t holder, uint32_t incarnation)
{
    atomic_store_explicit(&entry->holder, (uint64_t)holder << 32 | incarnation, memory_order_release);
}

static bool
is_free(const Port *self, SlabEntry *table, uint32_t index)
{
    return atomic_load_explicit(&table[index].word, memory_order_acquire) == word_of(self->slabs[index].use, FREE);
}

/* Learns what a predecessor left in the own pool, as far as it makes sense. */
static void
recover(Port *self, SlabEntry *table)
{
    self->slabs_known = true;
    for (uint32_t index = 0; index < SLABS; index++) {
        uint64_t offset = atomic_load(&table[index].offset), capacity = atomic_load(&table[index].capacity);
        if (offset != self->slab_end || capacity == 0 || capacity % SLAB_GRAIN || capacity > POOL_DATA - offset)
            return;
        self->slabs[index] = (OwnSlab){.offset = offset, .capacity = capacity, .use = atomic_load(&table[index].word) >> 2};
        self->slab_end = offset + capacity;
        self->slab_count = index + 1;
    }
}

/* Whether nobody is left who could give a slab of the own pool back. */
static bool
is_orphan(const Port *self, SlabEntry *entry, int state)
{
    uint64_t both = atomic_load_explicit(&entry->holder, memory_order_acquire);
    uint32_t holder = (uint32_t)(both >> 32), incarnation = (uint32_t)both;
    if (holder >= self->size)
        return true; /* nonsense */
    if (atomic_load(&page_of(self, holder)->occupant) > incarnation)
        return true; /* a later one; an earlier one may be only the trace of a predecessor */
    return state == GIVEN && holder != self->rank && incarnation < self->out[holder].gone;
}

/* Takes back what those have who are gone; tells whether there was anything. */
static bool
collect_orphans(Port *self, SlabEntry *table)
{
    bool found = false;
    for (uint32_t index = 0; index < self->slab_count; index++)
        for (int state = HELD; state <= GIVEN; state++)
            if (atomic_load(&table[index].word) == word_of(self->slabs[index].use, state) &&
                is_orphan(self, &table[index], state) && change(&table[index], self->slabs[index].use, state, FREE))
                found = true;
    return found;
}

/* Cuts the memory anew, once nothing of it is in use. */
static bool
start_over(Port *self, SlabEntry *table)
{
    for (uint32_t index = 0; index < self->slab_count; index++)
        if (!is_free(self, table, index))
            return false;
    for (uint32_t index = 0; index < self->slab_count; index++)
        atomic_store(&table[index].capacity, 0);
    self->slab_count = 0;
    self->slab_end = 0;
    return true;
}

static int
cut(Port *self, SlabEntry *table, uint64_t size)
{
    uint64_t capacity = (size + SLAB_GRAIN - 1) / SLAB_GRAIN * SLAB_GRAIN;
    if (self->slab_count == SLABS || capacity > POOL_DATA - self->slab_end)
        return -1;
    uint32_t index = self->slab_count++;
    OwnSlab *slab = &self->slabs[index];
    uint64_t use = atomic_load(&table[index].word) >> 2; /* what was cut here before has had all uses up to it */
    if (use < slab->use)
        use = slab->use;
    *slab = (OwnSlab){.offset = self->slab_end, .capacity = capacity, .use = use};
    atomic_store(&table[index].offset, slab->offset);
    atomic_store(&table[index].capacity, capacity);
    atomic_store(&table[index].word, word_of(slab->use, FREE));
    self->slab_end += capacity;
    return (int)index;
}

/* Returns the number of a free slab of the own pool, the tightest that fits, or -1. */
static int
find_free(Port *self, SlabEntry *table, uint64_t size)
{
    int best = -1;
    for (uint32_t index = 0; index < self->slab_count; index++) {
        uint64_t capacity = self->slabs[index].capacity;
        if (capacity >= size && capacity / 2 <= size && is_free(self, table, index) &&
            (best < 0 || capacity < self->slabs[best].capacity))
            best = (int)index;
    }
    return best;
}

/* Takes a slab of the own pool for this process; returns where its memory is, or NULL where none is to be had. */
static char *
take(Port *self, uint64_t size, SlabKey *key)
{
    char *pool = size > POOL_DATA / 2 ? NULL : pool_of(self, self->rank);
    if (pool == NULL)
        return NULL;
    SlabEntry *table = table_of(pool);
    if (!self->slabs_known)
        recover(self, table);
    int index = find_free(self, table, size);
    if (index < 0 && collect_orphans(self, table))
        index = find_free(self, table, size);
    if (index < 0)
        index = cut(self, table, size);
    if (index < 0 && start_over(self, table))
        index = cut(self, table, size);
    if (index < 0)
        return NULL;
    OwnSlab *slab = &self->slabs[index];
    slab->fresh = slab->use == 0 || slab->trimmed;
    slab->mapped = slab->mapped && !slab->fresh;
    slab->use++;
    slab->used = true;
    slab->trimmed = false;
    set_holder(&table[index], self->rank, self->incarnation);
    atomic_store(&table[index].word, word_of(slab->use, HELD));
    *key = (SlabKey){self->rank, (uint32_t)index, slab->use};
    return pool + POOL_TABLE + slab->offset;
}

bool
slab_book(Port *self, uint32_t peer, uint32_t incarnation, uint64_t size, SlabKey *key)
{
    if (take(self, size, key) == NULL)
        return false;
    SlabEntry *entry = &table_of(self->pools[self->rank])[key->index];
    set_holder(entry, peer, incarnation);
    change(entry, key->use, HELD, GIVEN);
    return true;
}

/* Fills pages that have no memory yet by a system call, which neither clears them before nor faults for each; returns how
   many bytes it has written, which may be less. */
static size_t
write_fresh(Port *self, const OwnSlab *slab, const char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        off_t place = pool_offset(self, self->rank) + (off_t)(POOL_TABLE + slab->offset + done);
        ssize_t written = pwrite(self->fd, data + done, size - done, place);
        if (written <= 0)
            break;
        done += (size_t)written;
    }
    return done;
}

void
slab_fill(Port *self, const SlabKey *key, const Py_buffer *view)
{
    OwnSlab *slab = &self->slabs[key->index];
    SlabEntry *entry = &table_of(self->pools[self->rank])[key->index];
    /* Else its receiver was replaced, or has dropped it, and its memory may have been cut anew. */
    if (slab->use != key->use || atomic_load(&entry->word) == word_of(key->use, FREE))
        return;
    const char *from = view->buf;
    char *to = self->pools[self->rank] + POOL_TABLE + slab->offset;
    size_t size = (size_t)view->len, done = slab->fresh ? write_fresh(self, slab, from, size) : 0;
#ifdef MADV_POPULATE_WRITE
    if (!slab->fresh && !slab->mapped)
        slab->mapped = madvise(to, slab->capacity, MADV_POPULATE_WRITE) == 0;
#endif
    memcpy(to + done, from + done, size - done);
}

void
slab_take_back(Port *self, const SlabKey *key)
{
    change(&table_of(self->pools[self->rank])[key->index], key->use, GIVEN, FREE);
}

void
slab_trim(Port *self)
{
    char *pool = self->pools[self->rank];
    for (uint32_t index = 0; pool != NULL && index < self->slab_count; index++) {
        OwnSlab *slab = &self->slabs[index];
        if (!slab->used && !slab->trimmed && is_free(self, table_of(pool), index))
            slab->trimmed = madvise(pool + POOL_TABLE + slab->offset, slab->capacity, MADV_REMOVE) == 0;
        slab->used = false;
    }
}

/* -- Slabs that this process has ---------------------------------------------------------------------------- */

typedef struct Slab {
    PyObject_HEAD
    Port *port;
    SlabKey key;
    SlabEntry *entry;
    char *data;
    size_t size;
    pid_t pid;
    bool given; /* it is another's now, although the object still shows the memory */
    struct Slab *next, *previous; /* among the living of its port */
} Slab;

/* Returns the object of a slab that this process holds; NULL with an exception. */
static Slab *
make_slab(Port *self, const SlabKey *key, char *data, uint64_t size)
{
    Slab *slab = (Slab *)self->state->slab_type->tp_alloc(self->state->slab_type, 0);
    if (slab == NULL)
        return NULL;
    slab->port = (Port *)Py_NewRef(self);
    slab->key = *key;
    slab->entry = &table_of(self->pools[key->owner])[key->index];
    slab->data = data;
    slab->size = (size_t)size;
    slab->pid = getpid();
    slab->next = self->living;
    if (slab->next != NULL)
        slab->next->previous = slab;
    self->living = slab;
    self->living_bytes += size;
    return slab;
}

PyObject *
slab_receive(Port *self, const SlabKey *key, uint64_t size)
{
    if (key->owner >= self->size || key->index >= SLABS)
        return NULL;
    char *pool = pool_of(self, key->owner);
    if (pool == NULL)
        return PyErr_NoMemory();
    SlabEntry *entry = &table_of(pool)[key->index];
    uint64_t offset = atomic_load(&entry->offset); /* once: who wrote it may write it again */
    if (offset % SLAB_GRAIN || offset > POOL_DATA || size > POOL_DATA - offset)
        return NULL;
    if (!change(entry, key->use, GIVEN, HELD))
        return NULL;
    Slab *slab = make_slab(self, key, pool + POOL_TABLE + offset, size);
    if (slab == NULL)
        change(entry, key->use, HELD, FREE);
    return (PyObject *)slab;
}

PyObject *
slab_allocate(Port *self, uint64_t size)
{
    SlabKey key;
    char *data = size < SLAB_MIN ? NULL : take(self, size, &key);
    if (data == NULL)
        Py_RETURN_NONE;
    Slab *slab = make_slab(self, &key, data, size);
    if (slab == NULL)
        change(&table_of(self->pools[self->rank])[key.index], key.use, HELD, FREE);
    return (PyObject *)slab;
}

bool
slab_give(Port *self, uint32_t peer, uint32_t incarnation, PyObject *object, SlabKey *key)
{
    Slab *slab = (Slab *)object;
    if (slab->port != self || slab->given || slab->pid != getpid())
        return false;
    if (!change(slab->entry, slab->key.use, HELD, GIVEN))
        return false;
    set_holder(slab->entry, peer, incarnation); /* not before: while it is HELD, the owner asks whether its holder lives */
    slab->given = true;
    *key = slab->key;
    return true;
}

void
slab_keep(PyObject *object)
{
    Slab *slab = (Slab *)object;
    set_holder(slab->entry, slab->port->rank, slab->port->incarnation);
    slab->given = !change(slab->entry, slab->key.use, GIVEN, HELD);
}

PyObject *
slab_find(Port *self, const Py_buffer *view)
{
    for (Slab *slab = self->living; slab != NULL; slab = slab->next)
        if (slab->data == view->buf && slab->size == (size_t)view->len && !slab->given)
            return Py_NewRef(slab);
    Py_RETURN_NONE;
}

static void
slab_dealloc(Slab *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Port *port = self->port;
    if (self->next != NULL)
        self->next->previous = self->previous;
    if (self->previous != NULL)
        self->previous->next = self->next;
    else
        port->living = self->next;
    port->living_bytes -= self->size;
    if (!self->given && self->pid == getpid())
        change(self->entry, self->key.use, HELD, FREE);
    type->tp_free(self);
    Py_DECREF(port);
    Py_DECREF(type);
}

static int
slab_get_buffer(Slab *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->data, (Py_ssize_t)self->size, 0, flags);
}

static Py_ssize_t
slab_length(Slab *self)
{
    return (Py_ssize_t)self->size;
}

int
slab_privatize(Port *self)
{
    for (Slab *slab = self->living; slab != NULL; slab = slab->next) {
        size_t size = (slab->size + SLAB_GRAIN - 1) / SLAB_GRAIN * SLAB_GRAIN;
        char *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (copy == MAP_FAILED)
            return -1;
        memcpy(copy, slab->data, slab->size);
        if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, slab->data) == MAP_FAILED)
            return -1;
    }
    return 0;
}

static PyMemberDef slab_members[] = {
    {"given", T_BOOL, offsetof(Slab, given), READONLY, "whether it was given to another rank"},
    {NULL},
};

static PyType_Slot slab_slots[] = {
    {Py_tp_doc, "Shared memory that this process has, for a large buffer; given back when it is collected.\n\n"
                "As one of the buffers of a message that is sent, it is given to the receiver."},
    {Py_tp_dealloc, slab_dealloc},
    {Py_tp_members, slab_members},
    {Py_bf_getbuffer, slab_get_buffer},
    {Py_sq_length, slab_length},
    {0, NULL},
};

static PyType_Spec slab_spec = {
    .name = "klyng_mp._core.Slab",
    .basicsize = sizeof(Slab),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slab_slots,
};

int
slab_setup(PyObject *module, CoreState *state)
{
    state->slab_type = add_type(module, &slab_spec);
    return state->slab_type == NULL ? -1 : 0;
}
