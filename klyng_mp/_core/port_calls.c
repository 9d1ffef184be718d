/* What Python asks of a port; transports/shm.py is its only user. */

#include "port.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <errno.h>

static bool
is_usable(Port *self)
{
    if (self->released)
        PyErr_SetString(PyExc_ValueError, "this port has been released");
    return !self->released;
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
    ring->lost = false;
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
    unsigned int rank;
    int fd;
    if (!PyArg_ParseTuple(args, "Ii:set_bell", &rank, &fd))
        return NULL;
    if (rank >= self->size) {
        PyErr_Format(PyExc_ValueError, "there is no rank %u", rank);
        return NULL;
    }
    self->out[rank].bell = fd;
    Py_RETURN_NONE;
}

static PyObject *
result_of(Port *self, uint32_t peer, Parcel *parcel)
{
    return Py_NewRef(port_push(self, peer, parcel) == SENT ? Py_None : (PyObject *)parcel);
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
        if (port_send_small(self, (uint32_t)peer, &small) == SENT)
            Py_RETURN_NONE;
    }
    port_enter(self); /* to make a parcel may run anything: a buffer's own code, a collection */
    Parcel *parcel = parcel_new(self, (uint32_t)peer, message);
    PyObject *result = NULL;
    if (parcel != NULL && is_usable(self))
        result = result_of(self, (uint32_t)peer, parcel);
    Py_XDECREF(parcel);
    port_exit(self);
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
    if (peer < 0)
        return NULL;
    port_enter(self);
    Parcel *parcel = parcel_new(self, (uint32_t)peer, (Message *)args[1]);
    port_exit(self);
    return (PyObject *)parcel;
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
bool
port_has_new_room(Port *self, bool last)
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
        port_has_new_room(self, true);
    if (port_read(self, peer, &reader, &collector, &enough) < 0) {
        if (PyList_GET_SIZE(collector.list) == 0)
            Py_CLEAR(collector.list);
        else
            PyErr_Clear(); /* what was read is not lost, and `take_endings` tells whose ring was given up */
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
    }
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(found); index++) /* not before nothing can fail any more */
        self->in[PyLong_AsUnsignedLong(PyTuple_GET_ITEM(PyList_GET_ITEM(found, index), 0))].told = true;
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
        uint64_t closed = (uint64_t)self->incarnation << 32 | atomic_load(&page_of(self, (uint32_t)peer)->occupant);
        atomic_store_explicit(&out->header->closed, closed, memory_order_release);
    }
    if (in->broken) { /* a successor begins behind what the broken one wrote */
        in->broken = NULL;
        in->closed = atomic_load(&in->header->closed);
        in->position = atomic_load(&in->header->tail);
        atomic_store(&in->header->head, in->position);
    }
    out->lost = !tell;
    if (!tell)
        out->gone = (uint64_t)out->addressed + 1;
    in->ended = in->told = false;
    out->made = false; /* whoever sends again begins again */
    if (met && tell)
        port_ring_bell(self, (uint32_t)peer);
    Py_RETURN_NONE;
}

static bool
is_anything_due(Port *self)
{
    return self->endings > 0 || self->due || port_has_news(self, NULL) || port_has_new_room(self, false) ||
           port_has_met(self);
}

static PyObject *
method_has_news(Port *self, PyObject *Py_UNUSED(ignored))
{
    return is_usable(self) ? PyBool_FromLong(is_anything_due(self)) : NULL;
}

/* Says that this rank sleeps, unless something is due: then it returns false. */
bool
port_prepare_sleep(Port *self)
{
    RankPage *page = page_of(self, self->rank);
    atomic_store(&page->sleeping, 1);
    atomic_thread_fence(memory_order_seq_cst);
    bool news = is_anything_due(self);
    if (news)
        atomic_store(&page->sleeping, 0);
    return !news;
}

static PyObject *
method_prepare_sleep(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    port_expect(self, 0); /* each step that came in earlier sleeps has counted down */
    return PyBool_FromLong(port_prepare_sleep(self));
}

static PyObject *
method_forget_calls(Port *self, PyObject *Py_UNUSED(ignored))
{
    for (int slot = 0; !self->released && slot < MEETINGS; slot++)
        atomic_store_explicit(&page_of(self, self->rank)->met[slot], 0, memory_order_release);
    Py_RETURN_NONE;
}

static PyObject *
method_has_ended(Port *self, PyObject *args)
{
    unsigned int rank, incarnation;
    if (!PyArg_ParseTuple(args, "II:has_ended", &rank, &incarnation))
        return NULL;
    return PyBool_FromLong(!self->released && rank < self->size && has_ended(self, rank, incarnation));
}

/* Takes the bell's ringing from the one descriptor that shows something, if it is that; -1 with an exception. */
static int
wait_for_bell(Gate *gate, int poller, int bell)
{
    struct epoll_event shown[2];
    int count, error;
    gate->waiting++; /* whoever comes meanwhile must not think that nobody waits */
    do {
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(poller, shown, 2, SLICE_MS);
        Py_END_ALLOW_THREADS
        error = count > 0 ? 0 : PyErr_CheckSignals();
    } while (count == 0 && error == 0);
    gate->waiting--;
    if (count < 0 || error < 0)
        return error;
    uint64_t rings;
    return count == 1 && shown[0].data.fd == bell && read(bell, &rings, sizeof rings) > 0;
}

/* Whether as many peers have sent something as steps are awaited. */
static bool
are_steps_here(Port *self, const void *steps)
{
    unsigned int here = 0;
    for (uint32_t index = 0; index < self->source_count; index++)
        here += port_has_news(self, &self->in[self->sources[index]]);
    return here >= *(const unsigned int *)steps;
}

static PyObject *
method_doze(Port *self, PyObject *args)
{
    PyObject *gate;
    int poller;
    unsigned int steps;
    if (!PyArg_ParseTuple(args, "O!iI:doze", self->state->gate_type, &gate, &poller, &steps) || !is_usable(self))
        return NULL;
    self->ringer = NOBODY;
    if (port_spin(self, port_has_news, NULL) || (steps > 0 && port_yield(self, are_steps_here, &steps)))
        Py_RETURN_TRUE;
    if (self->released) /* by another thread, while this one yielded */
        Py_RETURN_FALSE;
    port_expect(self, steps);
    const bool asleep = port_prepare_sleep(self);
    const int woken = asleep ? wait_for_bell((Gate *)gate, poller, self->out[self->rank].bell) : 1;
    if (!self->released) {
        port_expect(self, 0);
        if (asleep && woken > 0)
            self->ringer = atomic_load_explicit(&page_of(self, self->rank)->ringer, memory_order_relaxed);
    }
    return woken < 0 ? NULL : PyBool_FromLong(woken);
}

static PyObject *
method_release(Port *self, PyObject *Py_UNUSED(ignored))
{
    port_release(self);
    Py_RETURN_NONE;
}

static PyObject *
method_next_due(Port *self, PyObject *Py_UNUSED(ignored))
{
    for (uint32_t peer = 0; self->due && peer < self->size; peer++)
        if (self->out[peer].due)
            return PyLong_FromUnsignedLong(peer);
    self->due = false;
    Py_RETURN_NONE;
}

static PyObject *
method_rung(Port *self, PyObject *object)
{
    int64_t peer = read_peer(self, object);
    if (peer < 0)
        return NULL;
    self->out[peer].due = false;
    Py_RETURN_NONE;
}

static PyObject *
method_allocate(Port *self, PyObject *object)
{
    size_t size = PyLong_AsSize_t(object);
    if ((size == (size_t)-1 && PyErr_Occurred()) || !is_usable(self))
        return NULL;
    return slab_allocate(self, size);
}

static PyObject *
method_find_slab(Port *self, PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = slab_find(self, &view);
    PyBuffer_Release(&view);
    return found;
}

static PyObject *
method_land(Port *self, PyObject *args)
{
    PyObject *owner, *peer_object, *object, *head;
    unsigned long long context;
    long long tag;
    if (!PyArg_ParseTuple(args, "OOKLOO:land", &owner, &peer_object, &context, &tag, &object, &head))
        return NULL;
    int64_t peer = read_peer(self, peer_object);
    if (peer < 0)
        return NULL;
    Landing *landing = &self->landing;
    if (landing->object != NULL || (head != Py_None && !PyBytes_Check(head)))
        Py_RETURN_FALSE; /* one at a time */
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    *landing = (Landing){true, owner, context, (uint32_t)peer, tag, Py_NewRef(object),
                         head == Py_None ? NULL : Py_NewRef(head), view};
    atomic_store_explicit(&self->in[peer].header->lands, 1, memory_order_relaxed);
    Py_RETURN_TRUE;
}

static PyObject *
method_unland(Port *self, PyObject *owner)
{
    if (self->landing.owner == owner && landing_clear(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
method_trim(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    slab_trim(self);
    Py_RETURN_NONE;
}

static PyObject *
method_spin(Port *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_usable(self))
        return NULL;
    return PyBool_FromLong(port_spin(self, port_has_news, NULL));
}

/* Puts a value, which it steals, into a dict by peer; 0, or -1 with an exception. */
static int
add_item(PyObject *dict, uint32_t peer, PyObject *value)
{
    PyObject *key = PyLong_FromUnsignedLong(peer);
    int result = key == NULL || value == NULL ? -1 : PyDict_SetItem(dict, key, value);
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}

static PyObject *
method_take_counts(Port *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *counts = PyDict_New();
    for (uint32_t peer = 0; counts != NULL && peer < self->size; peer++) {
        uint64_t sent = self->out[peer].sent;
        if (sent > 0 && add_item(counts, peer, PyLong_FromUnsignedLongLong(sent)) < 0)
            Py_CLEAR(counts);
    }
    PyObject *key, *value;
    for (Py_ssize_t position = 0; counts != NULL && PyDict_Next(counts, &position, &key, &value);)
        self->out[PyLong_AsUnsignedLong(key)].sent -= PyLong_AsUnsignedLongLong(value); /* nothing can fail any more */
    return counts;
}

static PyObject *
method_traffic(Port *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *traffic = PyDict_New();
    for (uint32_t peer = 0; traffic != NULL && peer < self->size; peer++) {
        const Ring *ring = &self->out[peer];
        if (ring->bytes > 0 && add_item(traffic, peer, Py_BuildValue("KK", ring->messages, ring->bytes)) < 0)
            Py_CLEAR(traffic);
    }
    return traffic;
}

static PyObject *
method_spins(Port *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *spins = PyDict_New();
    for (uint32_t peer = 0; spins != NULL && peer < self->size; peer++) {
        uint64_t spun = self->out[peer].spun_ns + self->in[peer].spun_ns;
        if (spun > 0 && add_item(spins, peer, PyLong_FromUnsignedLongLong(spun)) < 0)
            Py_CLEAR(spins);
    }
    return spins;
}

static PyObject *
method_connections(Port *self, PyObject *Py_UNUSED(ignored))
{
    long count = 0;
    for (uint32_t peer = 0; self->base != NULL && peer < self->size; peer++)
        count += self->out[peer].made || (self->known[peer / 64] >> peer % 64 & 1);
    return PyLong_FromLong(count);
}

PyMethodDef port_methods[] = {
    {"open", (PyCFunction)method_open, METH_VARARGS, "Let the short way send to a peer's occupant with this incarnation."},
    {"shut", (PyCFunction)method_shut, METH_O, "Let the short way send to a peer no more."},
    {"set_bell", (PyCFunction)method_set_bell, METH_VARARGS, "Know a rank's eventfd, which the caller keeps open."},
    {"send", (PyCFunction)(void (*)(void))method_send, METH_FASTCALL,
     "Write a message into a peer's ring; return the parcel with what there was no room for, or None."},
    {"next_due", (PyCFunction)method_next_due, METH_NOARGS,
     "Return a peer that has to be woken and whose bell is not known, or None."},
    {"rung", (PyCFunction)method_rung, METH_O, "Take note that somebody wakes this peer."},
    {"allocate", (PyCFunction)method_allocate, METH_O, "Return a Slab of so many bytes, or None where none is to be had."},
    {"find_slab", (PyCFunction)method_find_slab, METH_O, "Return the Slab that is all of a buffer's memory, or None."},
    {"land", (PyCFunction)method_land, METH_VARARGS,
     "Put the next large message of a peer, with a context and a tag (or -1), into a buffer if it is large enough, and\n"
     "the head is the given one (or None); it then has the buffer itself as its own. Return False if one lands already.\n"
     "The first argument, which the caller keeps alive, says whose landing it is."},
    {"unland", (PyCFunction)method_unland, METH_O, "Put nothing into this one's landing any more, if it has it."},
    {"trim", (PyCFunction)method_trim, METH_NOARGS,
     "Give back the memory of those slabs of the own pool that were not used since the last call."},
    {"has_ended", (PyCFunction)method_has_ended, METH_VARARGS,
     "Tell whether the supervisor has seen the end of a rank's occupant with this incarnation."},
    {"forget_calls", (PyCFunction)method_forget_calls, METH_NOARGS, "Let nobody see any call of this rank any more."},
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
    {"doze", (PyCFunction)method_doze, METH_VARARGS,
     "Sleep until this rank's bell rings and silence it, or until anything else shows at the poller, which is left there:\n"
     "then return False. Of so many steps of collectives only the last one rings. Not for several threads at once."},
    {"spin", (PyCFunction)method_spin, METH_NOARGS, "Wait as long as waking up would take; return whether there is news."},
    {"take_counts", (PyCFunction)method_take_counts, METH_NOARGS,
     "Return how many messages of users the short way sent to whom since the last call."},
    {"traffic", (PyCFunction)method_traffic, METH_NOARGS,
     "Return (messages, bytes) that have left for each peer, of those to whom any has, in the port's life."},
    {"spins", (PyCFunction)method_spins, METH_NOARGS,
     "Return the nanoseconds that the short way has spun for each peer, of those for whom it has, in the port's life."},
    {"connections", (PyCFunction)method_connections, METH_NOARGS, "Return with how many peers anything was exchanged."},
    {"release", (PyCFunction)method_release, METH_NOARGS, "Give the memory back; nothing more can be done."},
    {NULL},
};
