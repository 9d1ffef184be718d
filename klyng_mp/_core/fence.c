/* Whether a small message may go past the mailbox of a rank whose messages others move (klyng_mp/cluster/lane.py), and
   how many have. As in express.c: nothing is done where another thread is inside or waits, the run is over, the peer is
   this rank, or the tag is none of those others'; and on the way in where a message or a receive waits in the mailbox.
   Others let go of the interpreter lock while they look: where there are threads, the gate's lock is held meanwhile. */

#include "core.h"
#include "mailbox.h"

#include <sched.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    CoreState *state;
    Gate *gate;
    Mailbox *mailbox;
    uint64_t context;
    uint32_t size, own;
    int64_t most; /* the largest tag of theirs */
    int64_t half; /* from here on tags go within the message, under what is left of them above this; or 0 */
    Py_ssize_t largest; /* bytes of a small object */
    PyObject *way_out; /* way_out(object, rank, tag) sends it */
    PyObject *probe;   /* probe(rank, tag, status): what has come from there, or None */
    PyObject *receive; /* the name of the method of what it finds that receives it */
    PyObject *frame;   /* the type of what goes the long way */
    PyObject *odd;     /* odd(object, error, rank, tag): what becomes of what is not for the caller as it is */
    PyObject *any_rank, *any_tag, *status; /* what it is given for any, and what it tells the sender in */
    unsigned int looks; /* in one go */
    bool yields, shut;
    uint64_t *out, *in; /* by rank */
} Fence;

/* Reads a peer; false where the long way has to be taken. */
static bool
fence_read_peer(const Fence *self, PyObject *object, uint32_t *rank)
{
    if (!PyLong_CheckExact(object))
        return false;
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    *rank = (uint32_t)number;
    return !overflow && number >= 0 && number < self->size && number != self->own;
}

/* Reads a tag; false where the long way has to be taken. */
static bool
fence_read_tag(const Fence *self, PyObject *object, int64_t *tag)
{
    if (!PyLong_CheckExact(object))
        return false;
    int overflow;
    *tag = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow && *tag >= 0 && (*tag <= self->most || self->half);
}

static bool
is_any(PyObject *object)
{
    int overflow;
    return PyLong_CheckExact(object) && PyLong_AsLongLongAndOverflow(object, &overflow) == ANY && !overflow;
}

static bool
is_wrapped(const Fence *self, int64_t tag)
{
    return self->half && tag >= self->half;
}

static PyObject *
left_of(const Fence *self, int64_t tag)
{
    return PyLong_FromLongLong(self->half + tag % self->half);
}

/* Sends a tag and an object under what is left of the tag; returns what way_out returns. */
static PyObject *
send_wrapped(Fence *self, PyObject *const *args, int64_t tag)
{
    PyObject *sent = NULL, *left = left_of(self, tag), *wrapped = PyTuple_Pack(2, args[2], args[0]);
    if (left != NULL && wrapped != NULL) {
        PyObject *sending[] = {wrapped, args[1], left};
        sent = PyObject_Vectorcall(self->way_out, sending, 3, NULL);
    }
    Py_XDECREF(left);
    Py_XDECREF(wrapped);
    return sent;
}

static PyObject *
fence_send(Fence *self, PyObject *const *args, Py_ssize_t count)
{
    uint32_t rank;
    int64_t tag;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "send() takes an object, a rank and a tag");
        return NULL;
    }
    if (!fence_read_peer(self, args[1], &rank) || !fence_read_tag(self, args[2], &tag) ||
        !gate_is_open(self->gate, self->context) || !head_is_small(args[0], self->largest))
        Py_RETURN_FALSE;
    PyObject *sent = is_wrapped(self, tag) ? send_wrapped(self, args, tag)
                                           : PyObject_Vectorcall(self->way_out, args, 3, NULL);
    if (sent == NULL)
        return NULL;
    Py_DECREF(sent);
    self->out[rank]++;
    Py_RETURN_TRUE;
}

/* Whether nothing here is before what others have. */
static bool
is_passable(const Fence *self)
{
    const Envelope any = {.source = ANY, .number = ANY};
    return !self->shut && gate_is_open(self->gate, self->context) &&
           mailbox_is_unposted(self->mailbox, self->context) &&
           mailbox_peek(self->mailbox, self->context, &any) == NULL;
}

/* Whether another thread may take in, while a look lets it run, what comes after what is found. */
static bool
has_company(void)
{
    return PyThreadState_Next(PyInterpreterState_ThreadHead(PyInterpreterState_Get())) != NULL;
}

/* Returns what the probe is given for a tag. */
static PyObject *
tag_to_probe(const Fence *self, PyObject *object, int64_t tag)
{
    if (tag == ANY)
        return Py_NewRef(self->any_tag);
    return is_wrapped(self, tag) ? left_of(self, tag) : Py_NewRef(object);
}

/* Returns what the probe finds, having looked often; NOT_YET or NOTHING instead, as recv does. */
static PyObject *
look(Fence *self, PyObject *rank_object, PyObject *tag_object, int64_t *rank, int64_t *tag)
{
    uint32_t peer = 0;
    const bool from_any = is_any(rank_object), with_any = is_any(tag_object);
    *tag = ANY;
    if (!(from_any || fence_read_peer(self, rank_object, &peer)) ||
        !(with_any || fence_read_tag(self, tag_object, tag)) || ((from_any || with_any) && self->half))
        return Py_NewRef(self->state->nothing);
    PyObject *probed = tag_to_probe(self, tag_object, *tag);
    if (probed == NULL)
        return NULL;
    PyObject *looking[] = {from_any ? self->any_rank : rank_object, probed, self->status}, *found = NULL;
    *rank = from_any ? ANY : (int64_t)peer;
    for (unsigned int looks = 0; looks < self->looks; looks++) {
        found = PyObject_Vectorcall(self->probe, looking, 3, NULL);
        if (found != Py_None)
            break;
        Py_CLEAR(found);
        if (self->yields)
            sched_yield();
    }
    Py_DECREF(probed);
    if (found != NULL || PyErr_Occurred())
        return found;
    return Py_NewRef(from_any ? self->state->nothing : self->state->not_yet);
}

/* Reads the number of a rank that there is; -1 with an exception. */
static int64_t
read_rank(const Fence *self, PyObject *object)
{
    const unsigned long rank = PyLong_AsUnsignedLong(object);
    if (rank == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (rank >= self->size) {
        PyErr_Format(PyExc_IndexError, "there is no rank %lu", rank);
        return -1;
    }
    return (int64_t)rank;
}

/* Counts a message that was received from a rank; -1 with an exception. */
static int
note_in(Fence *self, int64_t rank)
{
    if (mailbox_count_taken(self->mailbox, self->context) < 0)
        return -1;
    self->in[rank]++;
    return 0;
}

/* Gives what was received, or the exception that came instead, to who knows what is to be done with it. */
static PyObject *
hand_over(Fence *self, PyObject *obj, int64_t rank, int64_t tag)
{
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    if (obj == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return NULL;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(error, traceback);
    }
    PyObject *handled = PyObject_CallFunction(self->odd, "OOLL", obj == NULL ? Py_None : obj,
                                              error == NULL ? Py_None : error, (long long)rank, (long long)tag);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return handled;
}

/* Receives what the probe has found, as recv does. */
static PyObject *
take(Fence *self, PyObject *found, int64_t rank, int64_t tag)
{
    if (rank == ANY) {
        PyObject *source = PyObject_CallMethod(self->status, "Get_source", NULL);
        rank = source == NULL ? -1 : read_rank(self, source);
        Py_XDECREF(source);
        if (rank < 0)
            return NULL;
    }
    PyObject *obj = PyObject_CallMethodNoArgs(found, self->receive);
    if (obj != NULL && (PyObject *)Py_TYPE(obj) != self->frame && !is_wrapped(self, tag)) {
        if (note_in(self, rank) < 0)
            Py_CLEAR(obj);
        return obj;
    }
    PyObject *handled = hand_over(self, obj, rank, tag);
    Py_XDECREF(obj);
    return handled;
}

static PyObject *
fence_recv(Fence *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "recv() takes a rank and a tag");
        return NULL;
    }
    /* What is decided here holds until the interpreter lock is released, and then by the gate's. */
    const bool passable = is_passable(self), locked = passable && has_company();
    if (!passable || (locked && !gate_enter_now(self->gate)))
        return Py_NewRef(self->state->nothing);
    int64_t rank, tag;
    PyObject *got = look(self, args[0], args[1], &rank, &tag);
    if (got != NULL && got != self->state->nothing && got != self->state->not_yet) {
        PyObject *found = got;
        got = take(self, found, rank, tag);
        Py_DECREF(found);
    }
    if (locked)
        gate_leave(self->gate);
    return got;
}

static PyObject *
fence_note_in(Fence *self, PyObject *object)
{
    const int64_t rank = read_rank(self, object);
    if (rank < 0 || note_in(self, rank) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
fence_sent(Fence *self, PyObject *object)
{
    const int64_t rank = read_rank(self, object);
    return rank < 0 ? NULL : PyLong_FromUnsignedLongLong(self->out[rank]);
}

static PyObject *
fence_received(Fence *self, PyObject *object)
{
    const int64_t rank = read_rank(self, object);
    return rank < 0 ? NULL : PyLong_FromUnsignedLongLong(self->in[rank]);
}

static PyObject *
fence_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gate", "mailbox", "context", "size", "own", "most", "half",
                            "largest", "send", "probe", "odd", "frame", "any_rank", "any_tag", "status", "looks",
                            "yields", NULL};
    CoreState *state = state_of_type(type);
    PyObject *gate, *mailbox, *way_out, *probe, *odd, *frame, *any_rank, *any_tag, *status;
    unsigned long long context;
    unsigned int size, own, looks;
    int yields;
    long long most, half;
    Py_ssize_t largest;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!KIILLnOOOOOOOIp:Fence", names, state->gate_type, &gate,
                                     state->mailbox_type, &mailbox, &context, &size, &own, &most, &half, &largest,
                                     &way_out, &probe, &odd, &frame, &any_rank, &any_tag, &status, &looks, &yields))
        return NULL;
    Fence *self = (Fence *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->gate = (Gate *)Py_NewRef(gate);
    self->mailbox = (Mailbox *)Py_NewRef(mailbox);
    self->context = context;
    self->size = size;
    self->own = own;
    self->most = most;
    self->half = half;
    self->largest = largest;
    self->way_out = Py_NewRef(way_out);
    self->probe = Py_NewRef(probe);
    self->odd = Py_NewRef(odd);
    self->frame = Py_NewRef(frame);
    self->any_rank = Py_NewRef(any_rank);
    self->any_tag = Py_NewRef(any_tag);
    self->status = Py_NewRef(status);
    self->looks = looks;
    self->yields = yields;
    self->out = PyMem_Calloc((size_t)size + 1, sizeof *self->out);
    self->in = PyMem_Calloc((size_t)size + 1, sizeof *self->in);
    if (self->out == NULL || self->in == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->receive = PyUnicode_InternFromString("recv");
    if (self->receive == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
fence_traverse(Fence *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->way_out);
    Py_VISIT(self->probe);
    Py_VISIT(self->odd);
    Py_VISIT(self->frame);
    Py_VISIT(self->status);
    return 0;
}

static int
fence_clear(Fence *self)
{
    Py_CLEAR(self->way_out);
    Py_CLEAR(self->probe);
    Py_CLEAR(self->odd);
    Py_CLEAR(self->frame);
    Py_CLEAR(self->status);
    return 0;
}

static void
fence_dealloc(Fence *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    fence_clear(self);
    Py_XDECREF(self->receive);
    Py_XDECREF(self->any_rank);
    Py_XDECREF(self->any_tag);
    Py_XDECREF(self->gate);
    Py_XDECREF(self->mailbox);
    PyMem_Free(self->out);
    PyMem_Free(self->in);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef fence_methods[] = {
    {"send", (PyCFunction)(void (*)(void))fence_send, METH_FASTCALL,
     "Send an object to a rank with a tag; return False, having done nothing, where the long way has to be taken."},
    {"recv", (PyCFunction)(void (*)(void))fence_recv, METH_FASTCALL,
     "Receive an object from a rank with a tag, or any, having looked for it often; return NOT_YET where nothing has come,\n"
     "and NOTHING where the long way has to be taken, as where nothing has come from any rank."},
    {"note_in", (PyCFunction)fence_note_in, METH_O, "Count a message that was received from a rank past the mailbox."},
    {"sent", (PyCFunction)fence_sent, METH_O, "Return how many messages were sent to a rank."},
    {"received", (PyCFunction)fence_received, METH_O, "Return how many messages from a rank were noted."},
    {NULL},
};

static PyMemberDef fence_members[] = {
    {"shut", T_BOOL, offsetof(Fence, shut), 0, "whether the long way has messages that are not in the mailbox yet"},
    {NULL},
};

static PyType_Slot fence_slots[] = {
    {Py_tp_doc, "What small messages pass on their way past a mailbox."},
    {Py_tp_new, fence_new},
    {Py_tp_dealloc, fence_dealloc},
    {Py_tp_traverse, fence_traverse},
    {Py_tp_clear, fence_clear},
    {Py_tp_methods, fence_methods},
    {Py_tp_members, fence_members},
    {0, NULL},
};

static PyType_Spec fence_spec = {
    .name = "klyng_mp._core.Fence",
    .basicsize = sizeof(Fence),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = fence_slots,
};

int
fence_setup(PyObject *module, CoreState *state)
{
    state->fence_type = add_type(module, &fence_spec);
    return state->fence_type == NULL ? -1 : 0;
}
