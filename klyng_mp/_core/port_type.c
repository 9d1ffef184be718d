/* A port's life: the segment's geometry and its mapping, and the type; its calls are in port_calls.c. */

#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

size_t
rings_size(size_t size, size_t ring_size)
{
    size_t exact = size * PAGE_SIZE + size * size * (sizeof(RingHeader) + ring_size);
    return (exact + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
}

static size_t
segment_size(size_t size, size_t ring_size)
{
    return rings_size(size, ring_size) + size * POOL_SIZE;
}

static int
check_geometry(unsigned long size, unsigned long ring_size)
{
    if (size < 1 || size > MAX_RANKS) {
        PyErr_Format(PyExc_ValueError, "a segment is for 1 to %d ranks, not %lu", MAX_RANKS, size);
        return -1;
    }
    if (ring_size < MIN_RING || ring_size > (1u << 30) || (ring_size & (ring_size - 1))) {
        PyErr_Format(PyExc_ValueError, "a ring's size is a power of two from %d, not %lu", MIN_RING, ring_size);
        return -1;
    }
    return 0;
}

PyObject *
core_segment_size(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long size, ring_size;
    int pools;
    if (!PyArg_ParseTuple(args, "kkp:segment_size", &size, &ring_size, &pools) || check_geometry(size, ring_size) < 0)
        return NULL;
    return PyLong_FromSize_t(pools ? segment_size(size, ring_size) : rings_size(size, ring_size));
}

/* Where in a segment a supervisor writes which occupant of a rank's place has ended: a uint32_t. */
PyObject *
core_place_of_end(PyObject *Py_UNUSED(module), PyObject *rank)
{
    const unsigned long number = PyLong_AsUnsignedLong(rank);
    if (number == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromSize_t(number * PAGE_SIZE + offsetof(RankPage, ended));
}

/* -- Life --------------------------------------------------------------------------------------------------- */

static void
set_up_rings(Port *self)
{
    char *headers = self->base + (size_t)self->size * PAGE_SIZE;
    char *data = headers + (size_t)self->size * self->size * sizeof(RingHeader);
    for (uint32_t peer = 0; peer < self->size; peer++) {
        size_t out = (size_t)peer * self->size + self->rank, in = (size_t)self->rank * self->size + peer;
        self->out[peer] = (Ring){.header = (RingHeader *)headers + out, .data = data + out * self->ring_size, .bell = -1, .peer = peer};
        self->in[peer] = (Ring){.header = (RingHeader *)headers + in, .data = data + in * self->ring_size, .bell = -1, .peer = peer};
    }
}

/* Whether the process may map as much as it likes: a pool is large, though little of it becomes memory. */
static bool
has_address_space(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

/* A ring from a peer is first looked at when the peer has used it: looking would make its memory. */
static int
map_segment(Port *self, int fd)
{
    struct stat status;
    self->base_size = rings_size(self->size, self->ring_size);
    if (fstat(fd, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if ((uint64_t)status.st_size < self->base_size) {
        PyErr_Format(PyExc_ValueError, "the segment has %lld bytes, and %zu are needed", (long long)status.st_size,
                     self->base_size);
        return -1;
    }
    self->has_pools = (uint64_t)status.st_size >= segment_size(self->size, self->ring_size) && has_address_space();
    self->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    char *base = mmap(NULL, self->base_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->base = base;
    return 0;
}

static PyObject *
port_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "size", "ring_size", "rank", "incarnation", "spin", "call", NULL};
    int fd, spin;
    unsigned long size, ring_size;
    unsigned int rank, incarnation;
    PyObject *call;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ikkIIpO:Port", names, &fd, &size, &ring_size, &rank, &incarnation,
                                     &spin, &call) ||
        check_geometry(size, ring_size) < 0)
        return NULL;
    if (rank >= size) {
        PyErr_Format(PyExc_ValueError, "there is no rank %u among %lu", rank, size);
        return NULL;
    }
    Port *self = (Port *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state_of_type(type);
    self->size = (uint32_t)size;
    self->rank = rank;
    self->incarnation = incarnation;
    self->pid = getpid();
    self->ring_size = ring_size;
    self->spin = spin;
    self->call = Py_NewRef(call);
    self->out = PyMem_Calloc(size, sizeof(Ring));
    self->in = PyMem_Calloc(size, sizeof(Ring));
    self->sources = PyMem_Calloc(size, sizeof *self->sources);
    self->pools = PyMem_Calloc(size, sizeof *self->pools);
    self->fd = -1;
    if (self->out == NULL || self->in == NULL || self->sources == NULL || self->pools == NULL) {
        PyErr_NoMemory();
        Py_DECREF(self);
        return NULL;
    }
    if (map_segment(self, fd) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    set_up_rings(self);
    RankPage *page = page_of(self, rank);
    atomic_store(&page->sleeping, 0);
    atomic_store(&page->quiet, 0); /* who was killed in its sleep has left its count */
    atomic_store(&page->occupant, incarnation);
    atomic_store(&page->takes_slabs, self->has_pools);
    return (PyObject *)self;
}

static int
port_traverse(Port *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->call);
    return 0;
}

static int
port_clear(Port *self)
{
    Py_CLEAR(self->call);
    return 0;
}

static void
unmap(Port *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    if (self->base == NULL)
        return;
    for (uint32_t peer = 0; peer < self->size; peer++)
        assembly_drop(&self->in[peer].assembly);
    landing_clear(self);
    munmap(self->base, self->base_size);
    self->base = NULL;
}

/* No more can be done with the port; its memory goes when nobody is within a call of it. */
void
port_release(Port *self)
{
    self->released = true;
    if (self->busy == 0)
        unmap(self);
}

void
port_exit(Port *self)
{
    if (--self->busy == 0 && self->released)
        unmap(self);
}

static void
port_dealloc(Port *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weak_references != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    port_clear(self);
    unmap(self);
    for (uint32_t rank = 0; self->pools != NULL && rank < self->size; rank++)
        if (self->pools[rank] != NULL)
            munmap(self->pools[rank], POOL_SIZE);
    PyMem_Free(self->pools);
    PyMem_Free(self->out);
    PyMem_Free(self->in);
    PyMem_Free(self->sources);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- The type ----------------------------------------------------------------------------------------------- */

static PyMemberDef port_members[] = {
    {"rank", T_UINT, offsetof(Port, rank), READONLY, "this rank"},
    {"size", T_UINT, offsetof(Port, size), READONLY, "how many ranks there are"},
    {"due", T_BOOL, offsetof(Port, due), READONLY, "whether a peer has to be woken whose bell is not known"},
    {"endings", T_UINT, offsetof(Port, endings), READONLY, "how many rings have ended and were not taken"},
    {"messages_sent", T_ULONGLONG, offsetof(Port, messages_sent), READONLY, NULL},
    {"messages_received", T_ULONGLONG, offsetof(Port, messages_received), READONLY, NULL},
    {"bytes_sent", T_ULONGLONG, offsetof(Port, bytes_sent), READONLY, NULL},
    {"bytes_received", T_ULONGLONG, offsetof(Port, bytes_received), READONLY, NULL},
    {"slab_bytes", T_ULONGLONG, offsetof(Port, slab_end), READONLY, "of the own pool that have been used"},
    {"ringer", T_UINT, offsetof(Port, ringer), READONLY, "the rank that ended the last doze by the bell, or no rank"},
    {"living_bytes", T_ULONGLONG, offsetof(Port, living_bytes), READONLY, "of slabs that were received and are kept"},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Port, weak_references), READONLY, NULL},
    {"dropped", T_ULONGLONG, offsetof(Port, dropped), READONLY, "messages that were meant for a former occupant"},
    {NULL},
};

static PyType_Slot port_slots[] = {
    {Py_tp_doc, "One rank's rings in the memory that the ranks of a World on one host share."},
    {Py_tp_new, port_new},
    {Py_tp_dealloc, port_dealloc},
    {Py_tp_traverse, port_traverse},
    {Py_tp_clear, port_clear},
    {Py_tp_methods, port_methods},
    {Py_tp_members, port_members},
    {0, NULL},
};

static PyType_Spec port_spec = {
    .name = "klyng_mp._core.Port",
    .basicsize = sizeof(Port),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = port_slots,
};

int
port_setup(PyObject *module, CoreState *state)
{
    state->port_type = add_type(module, &port_spec);
    return state->port_type == NULL ? -1 : PyModule_AddIntConstant(module, "MAX_RANKS", MAX_RANKS);
}
