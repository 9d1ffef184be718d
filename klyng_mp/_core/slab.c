/* Slabs: pieces of shared memory that carry large buffers from rank to rank with one copy.

   Each rank has a pool in the segment: a table of slabs, and the memory that it is cut into. The sender copies a buffer
   into a slab of its own pool, and sends the slab's number; the receiver's object is the slab itself, until the object
   is collected. Then the slab goes back to the sender's pool with its pages warm, which is the point: to fill fresh
   pages costs several times what the copy costs.

       pool of a rank    [ table: 256 x { refs, offset, capacity } ][ data, cut from the front ]

       word               written by                             order               read by      order
       offset, capacity   the owner, who believes only what      relaxed             receiver,    after the record
                          it remembers itself                                        successor
       refs               owner: 1 when it sends                 relaxed, before     owner        acquire
                          receiver: back to 0                    the record; release

   A slab is the owner's while refs is 0 and its receiver's while it is 1; only the process that received it gives it
   back. When the receiver dies the owner takes its slabs back; when the owner dies its successor finds in the table
   what is still in use. A message that was meant for a former receiver is dropped without a look at its slabs.

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

static bool
is_free(SlabEntry *entry)
{
    return atomic_load_explicit(&entry->refs, memory_order_acquire) == 0;
}

/* Learns what a predecessor left in the own pool, as far as it makes sense. */
static void
recover(Port *self, SlabEntry *table)
{
    self->slabs_known = true;
    for (uint32_t index = 0; index < SLABS; index++) {
        uint64_t offset = table[index].offset, capacity = table[index].capacity;
        if (offset != self->slab_end || capacity == 0 || capacity % SLAB_GRAIN || capacity > POOL_DATA - offset)
            return;
        self->slabs[index] = (OwnSlab){offset, capacity, NOBODY};
        self->slab_end = offset + capacity;
        self->slab_count = index + 1;
    }
}

/* Cuts the memory anew, once nothing of it is in use. */
static bool
start_over(Port *self, SlabEntry *table)
{
    for (uint32_t index = 0; index < self->slab_count; index++)
        if (!is_free(&table[index]))
            return false;
    for (uint32_t index = 0; index < self->slab_count; index++)
        table[index].capacity = 0;
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
    self->slabs[self->slab_count] = (OwnSlab){self->slab_end, capacity, NOBODY};
    table[self->slab_count].offset = self->slab_end;
    table[self->slab_count].capacity = capacity;
    self->slab_end += capacity;
    return (int)self->slab_count++;
}

/* Returns the number of a free slab of the own pool, the tightest that fits, or -1. */
static int
find_free(Port *self, SlabEntry *table, uint64_t size)
{
    int best = -1;
    for (uint32_t index = 0; index < self->slab_count; index++) {
        uint64_t capacity = self->slabs[index].capacity;
        if (capacity >= size && capacity / 2 <= size && is_free(&table[index]) &&
            (best < 0 || capacity < self->slabs[best].capacity))
            best = (int)index;
    }
    return best;
}

int
slab_fill(Port *self, uint32_t peer, const Py_buffer *view)
{
    uint64_t size = (uint64_t)view->len;
    char *pool = size > POOL_DATA / 2 ? NULL : pool_of(self, self->rank);
    if (pool == NULL)
        return -1;
    SlabEntry *table = table_of(pool);
    if (!self->slabs_known)
        recover(self, table);
    int index = find_free(self, table, size);
    if (index < 0)
        index = cut(self, table, size);
    if (index < 0 && start_over(self, table))
        index = cut(self, table, size);
    if (index < 0)
        return -1;
    atomic_store_explicit(&table[index].refs, 1, memory_order_relaxed);
    self->slabs[index].holder = peer;
    memcpy(pool + POOL_TABLE + self->slabs[index].offset, view->buf, (size_t)size);
    return index;
}

void
slab_take_back(Port *self, int index)
{
    atomic_store_explicit(&table_of(self->pools[self->rank])[index].refs, 0, memory_order_release);
}

void
slab_take_back_from(Port *self, uint32_t peer)
{
    if (!self->slabs_known)
        return;
    for (uint32_t index = 0; index < self->slab_count; index++)
        if (self->slabs[index].holder == peer)
            slab_take_back(self, (int)index);
}

/* -- Slabs that were received ------------------------------------------------------------------------------- */

typedef struct Slab {
    PyObject_HEAD
    Port *port;
    char *data;
    size_t size;
    _Atomic uint32_t *refs;
    pid_t pid;
    struct Slab *next, *previous; /* among the living of its port */
} Slab;

PyObject *
slab_receive(Port *self, uint32_t source, uint64_t index, uint64_t size)
{
    char *pool = index < SLABS ? pool_of(self, source) : NULL;
    if (pool == NULL)
        return NULL;
    SlabEntry *entry = &table_of(pool)[index];
    uint64_t offset = entry->offset;
    if (offset % SLAB_GRAIN || offset > POOL_DATA || size > POOL_DATA - offset)
        return NULL;
    Slab *slab = (Slab *)self->state->slab_type->tp_alloc(self->state->slab_type, 0);
    if (slab == NULL) {
        PyErr_Clear();
        return NULL;
    }
    slab->port = (Port *)Py_NewRef(self);
    slab->data = pool + POOL_TABLE + offset;
    slab->size = (size_t)size;
    slab->refs = &entry->refs;
    slab->pid = getpid();
    slab->next = self->living;
    if (slab->next != NULL)
        slab->next->previous = slab;
    self->living = slab;
    self->living_bytes += size;
    return (PyObject *)slab;
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
    if (self->pid == getpid())
        atomic_store_explicit(self->refs, 0, memory_order_release);
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

static PyType_Slot slab_slots[] = {
    {Py_tp_doc, "A large buffer that was received, in the sender's pool; given back when it is collected."},
    {Py_tp_dealloc, slab_dealloc},
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
