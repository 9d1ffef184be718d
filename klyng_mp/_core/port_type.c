/* The port as Python sees it; transports/shm.py is its only user. */

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

/* -- Life --------------------------------------------------------------------------------------------------- */

static void
set_up_rings(Port *self)
{
    char *headers = self->base + (size_t)self->size * PAGE_SIZE;
    char *data = headers + (size_t)self->size * self->size * sizeof(RingHeader);
    for (uint32_t peer = 0; peer < self->size; peer++) {
        size_t out = (size_t)peer * self->size + self->rank, in = (size_t)self->rank * self->size + peer;
        self->out[peer] = (Ring){.header = (RingHeader *)headers + out, .data = data + out * self->ring_size, .bell = -1};
        self->in[peer] = (Ring){.header = (RingHeader *)headers + in, .data = data + in * self->ring_size, .bell = -1};
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
    RankPage *page = (RankPage *)(self->base + (size_t)rank * PAGE_SIZE);
    atomic_store(&page->sleeping, 0);
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
    munmap(self->base, self->base_size);
    self->base = NULL;
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

/* -- Asking ------------------------------------------------------------------------------------------------- */

static bool
is_usable(Port *self)
{
    if (self->base == NULL)
        PyErr_SetString(PyExc_ValueError, "this port has been released");
    return self->base != NULL;
}

/* Reads a peer's number; -1 with an exception. */
static int64_t
read_peer(Port *self, PyObject *object)
{
    if (!is_usable(self))
        return -1;
    unsigned long peer = PyLong_AsUnsignedLong(object);
    if (peer == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (peer >= self->size || peer == self->rank) {
        PyErr_Format(PyExc_ValueError, "rank %u has no ring to or from %lu", self->rank, peer);
        return -1;
    }
    return (int64_t)peer;
}

static PyObject *
method_open(Port *self, PyObject *args)
{
    PyObject *object;
    unsigned int incarnation;
    if (!PyArg_ParseTuple(args, "OI:open", &object, &incarnation))
        return NULL;
    int64_t peer = read_peer(self, object);
    if (peer < 0)
        return NULL;
    Ring *ring = &self->out[peer];
    ring->open = true;
    ring->incarnation = incarnation;
    Py_RETURN_NONE;
}

static PyObject *
method_shut(Port *self, PyObject *object)
{
    int64_t peer = read_peer(self, object);
    if (peer < 0)
        return NULL;
    self->out[peer].open = false;
    Py_RETURN_NONE;
}

static PyObject *
method_set_bell(Port *self, PyObject *args)
{
    PyObject *object;
    int fd;
    if (!PyArg_ParseTuple(args, "Oi:set_bell", &object, &fd))
        return NULL;
    int64_t peer = read_peer(self, object);
    if (peer < 0)
        return NULL;
    self->out[peer].bell = fd;
    Py_RETURN_NONE;
}

static PyObject *
result_of(Port *self, uint32_t peer, Parcel *parcel)
{
    Outcome outcome = port_push(self, peer, parcel);
    if (outcome == FAILED)
        return NULL;
    return Py_NewRef(outcome == SENT ? Py_None : (PyObject *)parcel);
}

static PyObject *
method_send(Port *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(args[1], self->state->message_type)) {
        PyErr_SetString(PyExc_TypeError, "send() takes a peer and a message");
        return NULL;
    }
    int64_t peer = read_peer(self, args[0]);
    if (peer < 0)
        return NULL;
    Message *message = (Message *)args[1];
    Py_ssize_t buffers = PyObject_Size(message->buffers);
    if (buffers < 0)
        return NULL;
    if (message->text == NULL && buffers == 0) {
        const Small small = {message->context, self->rank, message->incarnation, message->number, message->code,
                             PyBytes_AS_STRING(message->head), (size_t)PyBytes_GET_SIZE(message->head)};
        Outcome outcome = port_send_small(self, (uint32_t)peer, &small);
        if (outcome == FAILED)
            return NULL;
        if (outcome == SENT)
            Py_RETURN_NONE;
    }
    Parcel *parcel = parcel_new(self, (uint32_t)peer, message);
    if (parcel == NULL)
        return NULL;
    PyObject *result = result_of(self, (uint32_t)peer, parcel);
    Py_DECREF(parcel);
    return result;
}

static PyObject *
method_pack(Port *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(args[1], self->state->message_type)) {
        PyErr_SetString(PyExc_TypeError, "pack() takes a peer and a message");
        return NULL;
    }
    int64_t peer = read_peer(self, args[0]);
    return peer < 0 ? NULL : (PyObject *)parcel_new(self, (uint32_t)peer, (Message *)args[1]);
}

static PyObject *
method_privatize(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (slab_privatize(self) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *
method_push(Port *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !Py_IS_TYPE(args[1], self->state->parcel_type)) {
        PyErr_SetString(PyExc_TypeError, "push() takes a peer and a parcel");
        return NULL;
    }
    int64_t peer = read_peer(self, args[0]);
    return peer < 0 ? NULL : result_of(self, (uint32_t)peer, (Parcel *)args[1]);
}

typedef struct {
    CoreState *state;
    PyObject *list;
} Collector;

static int
collect_large(void *context, Message *message)
{
    return PyList_Append(((Collector *)context)->list, (PyObject *)message);
}

static int
collect_small(void *context, const Small *small)
{
    Collector *collector = context;
    PyObject *head = PyBytes_FromStringAndSize(small->head, (Py_ssize_t)small->head_size);
    PyObject *buffers = PyTuple_New(0);
    if (head == NULL || buffers == NULL) {
        Py_XDECREF(head);
        Py_XDECREF(buffers);
        return -1;
    }
    const Envelope tag = {.number = small->number};
    Message *message = message_new(collector->state, small->context, small->source, &tag, small->incarnation,
                                   small->code, head, buffers);
    if (message == NULL)
        return -1;
    int result = collect_large(context, message);
    Py_DECREF(message);
    return result;
}

/* Tells whether a peer has made room that was waited for. Who hears of it may be interrupted, or be after something
   else, so it is told until all rings are read, by someone who pushes next what waits. */
static bool
has_new_room(Port *self, bool last)
{
    bool room = false;
    for (uint32_t peer = 0; peer < self->size; peer++)
        if (self->out[peer].waits && !atomic_load(&self->out[peer].header->source_waits)) {
            room = true;
            if (last)
                self->out[peer].waits = false; /* perhaps nobody wants it any more */
        }
    return room;
}

static PyObject *
method_read(Port *self, PyObject *object)
{
    int64_t peer = ANY;
    if (!is_usable(self))
        return NULL;
    if (object != Py_None && (peer = read_peer(self, object)) < 0)
        return NULL;
    Collector collector = {self->state, PyList_New(0)};
    if (collector.list == NULL)
        return NULL;
    static const Reader reader = {collect_small, collect_large};
    const bool enough = false;
    if (peer == ANY)
        has_new_room(self, true);
    if (port_read(self, peer, &reader, &collector, &enough) < 0) {
        Py_DECREF(collector.list);
        return NULL;
    }
    return collector.list;
}

static PyObject *
method_take_endings(Port *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *found = PyList_New(0);
    if (found == NULL)
        return NULL;
    for (uint32_t peer = 0; self->endings > 0 && peer < self->size; peer++) {
        Ring *ring = &self->in[peer];
        if (ring->told || !(ring->ended || ring->broken))
            continue;
        PyObject *pair = Py_BuildValue("Is", peer, ring->broken ? ring->broken : "closed its connection");
        if (pair == NULL || PyList_Append(found, pair) < 0) {
            Py_XDECREF(pair);
            Py_DECREF(found);
            return NULL;
        }
        Py_DECREF(pair);
        ring->told = true;
    }
    self->endings = 0;
    return found;
}

static PyObject *
method_leave(Port *self, PyObject *args)
{
    PyObject *object;
    int tell;
    if (!PyArg_ParseTuple(args, "Op:leave", &object, &tell))
        return NULL;
    int64_t peer = read_peer(self, object);
    if (peer < 0)
        return NULL;
    Ring *out = &self->out[peer], *in = &self->in[peer];
    bool met = out->made || port_has_source(self, (uint32_t)peer);
    out->open = out->waits = false;
    assembly_drop(&in->assembly);
    if (met && tell) {
        port_make_ring(self, (uint32_t)peer);
        RankPage *page = (RankPage *)(self->base + (size_t)peer * PAGE_SIZE);
        uint64_t closed = (uint64_t)self->incarnation << 32 | atomic_load(&page->occupant);
        atomic_store_explicit(&out->header->closed, closed, memory_order_release);
    }
    if (in->broken) { /* a successor begins behind what the broken one wrote */
        in->broken = NULL;
        in->closed = atomic_load(&in->header->closed);
        in->position = atomic_load(&in->header->tail);
        atomic_store(&in->header->head, in->position);
    }
    if (!tell)
        slab_take_back_from(self, (uint32_t)peer);
    in->ended = in->told = false;
    out->made = false; /* whoever sends again begins again */
    if (met && tell && port_ring_bell(self, (uint32_t)peer) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static bool
is_anything_due(Port *self)
{
    return self->endings > 0 || port_has_news(self, NULL) || has_new_room(self, false);
}

static PyObject *
method_has_news(Port *self, PyObject *Py_UNUSED(ignored))
{
    return is_usable(self) ? PyBool_FromLong(is_anything_due(self)) : NULL;
}

static PyObject *
method_prepare_sleep(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    RankPage *page = (RankPage *)(self->base + (size_t)self->rank * PAGE_SIZE);
    atomic_store(&page->sleeping, 1);
    atomic_thread_fence(memory_order_seq_cst);
    bool news = is_anything_due(self);
    if (news)
        atomic_store(&page->sleeping, 0);
    return PyBool_FromLong(!news);
}

static PyObject *
method_release(Port *self, PyObject *Py_UNUSED(ignored))
{
    unmap(self);
    Py_RETURN_NONE;
}

static PyObject *
method_spin(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    return PyBool_FromLong(port_may_spin(self) && port_spin(self, port_has_news, NULL));
}

static PyObject *
method_take_counts(Port *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *counts = PyDict_New();
    for (uint32_t peer = 0; counts != NULL && peer < self->size; peer++) {
        if (self->out[peer].sent == 0)
            continue;
        PyObject *key = PyLong_FromUnsignedLong(peer), *value = PyLong_FromUnsignedLongLong(self->out[peer].sent);
        if (key == NULL || value == NULL || PyDict_SetItem(counts, key, value) < 0)
            Py_CLEAR(counts);
        Py_XDECREF(key);
        Py_XDECREF(value);
        self->out[peer].sent = 0;
    }
    return counts;
}

static PyObject *
method_connections(Port *self, PyObject *Py_UNUSED(ignored))
{
    long count = 0;
    for (uint32_t peer = 0; self->base != NULL && peer < self->size; peer++)
        count += self->out[peer].made || (self->known[peer / 64] >> peer % 64 & 1);
    return PyLong_FromLong(count);
}

static PyMethodDef port_methods[] = {
    {"open", (PyCFunction)method_open, METH_VARARGS, "Let the short way send to a peer's occupant with this incarnation."},
    {"shut", (PyCFunction)method_shut, METH_O, "Let the short way send to a peer no more."},
    {"set_bell", (PyCFunction)method_set_bell, METH_VARARGS, "Know a peer's eventfd, which the caller keeps open."},
    {"send", (PyCFunction)(void (*)(void))method_send, METH_FASTCALL,
     "Write a message into a peer's ring; return the parcel with what there was no room for, or None."},
    {"privatize", (PyCFunction)method_privatize, METH_NOARGS,
     "In a forked child: replace every slab that was received and lives by a private copy, where it is."},
    {"pack", (PyCFunction)(void (*)(void))method_pack, METH_FASTCALL, "Return the parcel of a message, to be pushed later."},
    {"push", (PyCFunction)(void (*)(void))method_push, METH_FASTCALL,
     "Write more of a parcel; return it while there is more, else None."},
    {"read", (PyCFunction)method_read, METH_O,
     "Return the messages that are in a peer's ring, or with None in all; then, push what waits for room."},
    {"take_endings", (PyCFunction)method_take_endings, METH_NOARGS,
     "Return (peer, reason) of each ring that has come to an end since the last call."},
    {"leave", (PyCFunction)method_leave, METH_VARARGS, "Be done with a peer, and tell it so unless it is dead."},
    {"has_news", (PyCFunction)method_has_news, METH_NOARGS, "Tell whether there is something to read, push or take."},
    {"prepare_sleep", (PyCFunction)method_prepare_sleep, METH_NOARGS,
     "Say that this rank sleeps until its bell rings; return False, and say nothing, if something is due already."},
    {"spin", (PyCFunction)method_spin, METH_NOARGS, "Wait as long as waking up would take; return whether there is news."},
    {"take_counts", (PyCFunction)method_take_counts, METH_NOARGS,
     "Return how many messages of users the short way sent to whom since the last call."},
    {"connections", (PyCFunction)method_connections, METH_NOARGS, "Return with how many peers anything was exchanged."},
    {"release", (PyCFunction)method_release, METH_NOARGS, "Give the memory back; nothing more can be done."},
    {NULL},
};

static PyMemberDef port_members[] = {
    {"rank", T_UINT, offsetof(Port, rank), READONLY, "this rank"},
    {"size", T_UINT, offsetof(Port, size), READONLY, "how many ranks there are"},
    {"endings", T_UINT, offsetof(Port, endings), READONLY, "how many rings have ended and were not taken"},
    {"messages_sent", T_ULONGLONG, offsetof(Port, messages_sent), READONLY, NULL},
    {"messages_received", T_ULONGLONG, offsetof(Port, messages_received), READONLY, NULL},
    {"bytes_sent", T_ULONGLONG, offsetof(Port, bytes_sent), READONLY, NULL},
    {"bytes_received", T_ULONGLONG, offsetof(Port, bytes_received), READONLY, NULL},
    {"slab_bytes", T_ULONGLONG, offsetof(Port, slab_end), READONLY, "of the own pool that have been used"},
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
