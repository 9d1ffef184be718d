/* The short way of a small message: from the caller's object into the ring, and from the ring to the caller's object,
   without a layer of Python in between.

   It does what Communicator, Codec, Endpoint, transport and Mailbox do together in the usual case, and nothing in any
   other: whatever is unusual (another thread is inside or waits, the run is over, the peer is lost or its ring is full,
   the tag is a text, the object is not of an everyday type, the message is not there yet), it leaves everything as it
   is and answers "take the long way". So each rule has its home there; here are only the looks that tell whether a
   rule is concerned.

   The interpreter lock is held from the look through the gate to the end of what is done behind it, and no Python code
   runs in between: objects are pickled before, and unpickled after. */

#include "port.h"

#define MOST_READS 4 /* of a ring in one receive, each of up to port.c's MOST_BYTES: others want the interpreter, too */

typedef struct {
    PyObject_HEAD
    CoreState *state;
    Gate *gate;
    Port *port;
    Mailbox *mailbox;
    PyObject *blame;  /* blame(error, code, head): the CodecError for an object that cannot be rebuilt */
    uint64_t context;
    uint32_t *members; /* the endpoint's number of each rank */
    uint32_t size, own, rank; /* own is the endpoint's number, rank the one here */
    bool main_by_reference;
} Express;

/* -- Sending ------------------------------------------------------------------------------------------------ */

/* Reads a rank and a tag of the usual kind; false for anything else. */
static bool
read_usual(Express *self, PyObject *rank_object, PyObject *tag_object, uint32_t *rank, int64_t *tag)
{
    if (!PyLong_CheckExact(rank_object) || !PyLong_CheckExact(tag_object))
        return false;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(rank_object, &overflow);
    if (overflow || number < 0 || number >= self->size)
        return false;
    *rank = (uint32_t)number;
    *tag = PyLong_AsLongLongAndOverflow(tag_object, &overflow);
    return !overflow && *tag >= 0;
}

static PyObject *
express_send(Express *self, PyObject *const *args, Py_ssize_t count)
{
    uint32_t rank;
    int64_t tag;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "send() takes an object, a rank and a tag");
        return NULL;
    }
    if (!read_usual(self, args[1], args[2], &rank, &tag))
        Py_RETURN_FALSE;
    uint32_t peer = self->members[rank];
    if (peer >= self->port->size || peer == self->own || !self->port->out[peer].open)
        Py_RETURN_FALSE;
    Encoded encoded;
    Encoding how = head_encode(self->state, self->main_by_reference, args[0], &encoded);
    if (how == RAISED)
        return NULL;
    Outcome outcome = NO_ROOM;
    /* Pickling may have run anything, so all that matters is looked at now. */
    Ring *ring = &self->port->out[peer];
    if (how == ENCODED && gate_is_open(self->gate, self->context) && !self->port->released && ring->open &&
        !has_ended(self->port, peer, ring->incarnation)) {
        const Small small = {self->context, self->own, ring->incarnation, tag, encoded.code, encoded.data, encoded.size};
        outcome = port_send_small(self->port, peer, &small);
        if (outcome == NO_ROOM && port_spin(self->port, ring_has_room, ring))
            outcome = port_send_small(self->port, peer, &small); /* its receiver is at work on it */
        if (outcome == SENT && !(self->context & 1))
            ring->sent++;
    }
    Py_XDECREF(encoded.owner);
    if (outcome == SENT && port_call(self->port, false) < 0)
        return NULL;
    return PyBool_FromLong(outcome == SENT);
}

/* -- Receiving ---------------------------------------------------------------------------------------------- */

typedef struct {
    Express *express;
    uint32_t source;
    int64_t tag;
    bool stored; /* one that would do may be in the mailbox */
    bool enough; /* what is wanted is here: */
    uint8_t code;
    PyObject *head;   /* bytes */
    Message *message; /* or all of it */
} Wanted;

/* Where a receive is posted, the mailbox decides whose a message is; and once one that would do is there, those that
   come after it are not taken past it, although nothing may be posted any more. */
static bool
is_wanted(Wanted *wanted, uint64_t context, uint32_t source, int64_t number, const PyObject *text)
{
    if (wanted->enough || context != wanted->express->context || source != wanted->source || text != NULL ||
        number != wanted->tag)
        return false;
    wanted->stored = wanted->stored || !mailbox_is_unposted(wanted->express->mailbox, context);
    return !wanted->stored;
}

static int
take_large(void *context, Message *message)
{
    Wanted *wanted = context;
    Express *express = wanted->express;
    if (!is_wanted(wanted, message->context, message->source, message->number, message->text))
        return mailbox_deliver(express->mailbox, message);
    if (mailbox_count_taken(express->mailbox, message->context) < 0)
        return -1;
    mailbox_note_matched(express->mailbox, message);
    wanted->message = (Message *)Py_NewRef(message);
    wanted->enough = true;
    return 0;
}

static int
take_small(void *context, const Small *small)
{
    Wanted *wanted = context;
    Express *express = wanted->express;
    PyObject *head = PyBytes_FromStringAndSize(small->head, (Py_ssize_t)small->head_size);
    if (head == NULL)
        return -1;
    if (is_wanted(wanted, small->context, small->source, small->number, NULL) &&
        head_is_everyday(small->code, small->head_size)) {
        if (mailbox_count_taken(express->mailbox, small->context) < 0) {
            Py_DECREF(head);
            return -1;
        }
        wanted->code = small->code;
        wanted->head = head;
        wanted->enough = true;
        return 0;
    }
    const Envelope tag = {.number = small->number};
    Message *message = message_new(express->state, small->context, small->source, &tag, small->incarnation, small->code,
                                   head, Py_NewRef(express->state->no_buffers));
    if (message == NULL)
        return -1;
    int result = take_large(context, message);
    Py_DECREF(message);
    return result;
}

/* Returns the object of a message, or the message itself where the codec has more to do than unpickle it. */
static PyObject *
open_message(Express *self, Message *message)
{
    Py_ssize_t parts = PyObject_Size(message->buffers);
    if (parts < 0)
        return NULL;
    if (message->code == BYTES_APART && parts == 1) {
        PyObject *only = PySequence_GetItem(message->buffers, 0);
        if (only == NULL || PyBytes_CheckExact(only))
            return only;
        Py_DECREF(only);
    }
    if (!head_is_everyday(message->code, (size_t)PyBytes_GET_SIZE(message->head)))
        return Py_NewRef(message);
    return head_decode(self->state, self->blame, message->code, PyBytes_AS_STRING(message->head),
                       (size_t)PyBytes_GET_SIZE(message->head), message->head, parts ? message->buffers : NULL);
}

/* Puts what was received back where it was, since the call ends with an exception. */
static void
restore(Express *self, Wanted *wanted)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    const Envelope tag = {.number = wanted->tag};
    if (wanted->message == NULL)
        wanted->message = message_new(self->state, self->context, wanted->source, &tag, self->port->incarnation,
                                      wanted->code, wanted->head, Py_NewRef(self->state->no_buffers));
    if (wanted->message == NULL || mailbox_restore(self->mailbox, wanted->message) < 0)
        PyErr_WriteUnraisable((PyObject *)self); /* no memory, on top of the exception that comes now */
    Py_XDECREF(wanted->message);
    PyErr_Restore(type, error, trace);
}

/* Returns the object that was received; its message is used up. */
static PyObject *
open_wanted(Express *self, Wanted *wanted)
{
    PyObject *object;
    if (wanted->message != NULL) {
        object = open_message(self, wanted->message);
        Py_DECREF(wanted->message);
        return object;
    }
    object = head_decode(self->state, self->blame, wanted->code, PyBytes_AS_STRING(wanted->head),
                         (size_t)PyBytes_GET_SIZE(wanted->head), wanted->head, NULL);
    Py_DECREF(wanted->head);
    return object;
}

/* Takes what is wanted from the mailbox, if it is there. */
static void
take_stored(Wanted *wanted)
{
    const Envelope envelope = {.source = wanted->source, .number = wanted->tag};
    wanted->message = mailbox_take(wanted->express->mailbox, wanted->express->context, &envelope);
    wanted->enough = wanted->message != NULL;
    wanted->stored = false;
}

/* Whether a wait for a peer may be in vain: the long way knows what became of it. */
static bool
is_doubtful(const Port *port, uint32_t peer)
{
    const Ring *ring = &port->in[peer];
    return ring->ended || ring->broken || port->out[peer].lost;
}

/* Reads a peer's ring until what is wanted is here, or has not come: then it returns `not_yet`, or `nothing` where
   the long way has to look. Returns borrowed, or NULL with an exception. */
static PyObject *
read_wanted(Express *self, Wanted *wanted)
{
    static const Reader reader = {take_small, take_large};
    Port *port = self->port;
    Ring *ring = &port->in[wanted->source];
    for (int reads = 0; !wanted->enough && reads < MOST_READS; reads++) {
        if (port->released || is_doubtful(port, wanted->source)) /* a finalizer may have run within a read */
            return self->state->nothing;
        if (!port_has_source(port, wanted->source)) /* its ring was never used: not even to be looked at */
            break;
        if (!port_has_news(port, ring) && !port_spin(port, port_has_news, ring))
            break;
        if (port_read(port, wanted->source, &reader, wanted, &wanted->enough) < 0)
            return NULL;
        if (wanted->stored)
            take_stored(wanted);
    }
    return self->state->not_yet;
}

/* Whether something that was read is to be told: to who sent it and wants to know that it was matched, also with a
   posted receive; or to who waits for it. A thread may have begun to wait meanwhile: to build a message may start a
   collection, and what is run by that may let others in. */
static bool
is_anything_due(const Express *self)
{
    return self->mailbox->unanswered > 0 || self->gate->waiting > 0;
}

static PyObject *
express_recv(Express *self, PyObject *const *args, Py_ssize_t count)
{
    uint32_t rank;
    int64_t tag;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "recv() takes a rank and a tag");
        return NULL;
    }
    if (!read_usual(self, args[0], args[1], &rank, &tag))
        return Py_NewRef(self->state->nothing);
    Port *port = self->port;
    uint32_t peer = self->members[rank];
    if (peer >= port->size || peer == self->own || port->released || !gate_is_open(self->gate, self->context))
        return Py_NewRef(self->state->nothing);
    if (port->reading) /* in a finalizer, or beside one: to try again here would wait with the interpreter lock held */
        return Py_NewRef(self->state->nothing);
    Wanted wanted = {.express = self, .source = peer, .tag = tag};
    take_stored(&wanted);
    PyObject *found = read_wanted(self, &wanted);
    if (found == NULL)
        return NULL;
    const bool due = is_anything_due(self);
    if ((port->due || due) && !wanted.enough)
        found = self->state->nothing; /* what is called now may bring it, to the mailbox */
    if (port_call(port, due) < 0) {
        if (wanted.enough)
            restore(self, &wanted);
        return NULL;
    }
    return wanted.enough ? open_wanted(self, &wanted) : Py_NewRef(found);
}

/* -- Steps of collectives with all others at once ------------------------------------------------------------- */

/* Sends one object to all other ranks, from the next one on; returns to how many, the long way being for the rest. */
static PyObject *
express_spread(Express *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "spread() takes an object and a tag");
        return NULL;
    }
    int64_t tag = PyLong_AsLongLong(args[1]);
    if (tag < 0)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
    Encoded encoded;
    Encoding how = head_encode(self->state, self->main_by_reference, args[0], &encoded);
    if (how == RAISED)
        return NULL;
    uint32_t done = 0;
    Port *port = self->port;
    if (how == ENCODED && gate_is_open(self->gate, self->context) && !port->released) {
        for (uint32_t rank = self->rank; done + 1 < self->size; done++) {
            rank = rank + 1 == self->size ? 0 : rank + 1;
            uint32_t peer = self->members[rank];
            Ring *ring = peer < port->size ? &port->out[peer] : NULL;
            if (ring == NULL || !ring->open || has_ended(port, peer, ring->incarnation))
                break;
            const Small small = {self->context, self->own, ring->incarnation, tag, encoded.code, encoded.data,
                                 encoded.size};
            if (port_send_small(port, peer, &small) != SENT)
                break;
        }
    }
    Py_XDECREF(encoded.owner);
    if (port_call(port, false) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(done);
}

/* Fills the places of a list, by rank, that hold NOT_YET; see express_collect. */
static long
collect_once(Express *self, PyObject *found, PyObject *tag)
{
    long missing = 0;
    for (uint32_t rank = 0; rank < self->size; rank++) {
        if (PyList_GET_ITEM(found, rank) != self->state->not_yet)
            continue;
        PyObject *number = PyLong_FromUnsignedLong(rank);
        if (number == NULL)
            return -2;
        PyObject *const words[] = {number, tag};
        PyObject *got = express_recv(self, words, 2);
        Py_DECREF(number);
        if (got == NULL)
            return -2;
        const bool waits = got == self->state->not_yet, unusual = got == self->state->nothing;
        if (waits || unusual)
            Py_DECREF(got);
        if (unusual)
            return -1;
        missing += waits;
        if (!waits && PyList_SetItem(found, rank, got) < 0) /* it became shorter while objects were built */
            return -2;
    }
    return missing;
}

/* Fills the places of a list, by rank, that hold NOT_YET, with what has come from these ranks. Returns how many are
   left, or -1 where the long way has to be taken for one of them. */
static PyObject *
express_collect(Express *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_CheckExact(args[0]) || PyList_GET_SIZE(args[0]) != self->size) {
        PyErr_SetString(PyExc_TypeError, "collect() takes a list with a place for each rank, and a tag");
        return NULL;
    }
    static const Reader reader = {take_small, take_large};
    Wanted nobody = {.express = self, .source = NOBODY};
    for (int looks = 0;; looks++) {
        const long missing = collect_once(self, args[0], args[1]);
        if (missing < -1)
            return NULL;
        if (missing <= 0)
            return PyLong_FromLong(missing);
        if (looks == MOST_READS || !gate_is_open(self->gate, self->context))
            return PyLong_FromLong(-1);
        /* What else is in the rings, as the next steps of those that are ahead, must not keep this rank from sleeping;
           and what is wanted may be among it. */
        Py_ssize_t read = port_read(self->port, ANY, &reader, &nobody, &nobody.enough);
        if (read < 0 || port_call(self->port, is_anything_due(self)) < 0)
            return NULL;
        if (read == 0)
            return PyLong_FromLong(missing);
    }
}

/* -- The type ----------------------------------------------------------------------------------------------- */

uint32_t *
read_members(PyObject *members, uint32_t *size)
{
    PyObject *list = PySequence_Fast(members, "the members of a communicator are a sequence");
    if (list == NULL)
        return NULL;
    *size = (uint32_t)PySequence_Fast_GET_SIZE(list);
    uint32_t *numbers = PyMem_Calloc(*size + 1, sizeof *numbers);
    if (numbers == NULL)
        PyErr_NoMemory();
    for (uint32_t rank = 0; numbers != NULL && rank < *size; rank++) {
        const unsigned long member = PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(list, rank));
        if (member == (unsigned long)-1 && PyErr_Occurred()) {
            PyMem_Free(numbers);
            numbers = NULL;
        } else
            numbers[rank] = member > UINT32_MAX ? UINT32_MAX : (uint32_t)member;
    }
    Py_DECREF(list);
    return numbers;
}

static PyObject *
express_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gate", "port", "mailbox", "context", "members", "main_by_reference", "blame", NULL};
    CoreState *state = state_of_type(type);
    PyObject *gate, *port, *mailbox, *members, *blame;
    unsigned long long context;
    int main_by_reference;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!KOpO:Express", names, state->gate_type, &gate,
                                     state->port_type, &port, state->mailbox_type, &mailbox, &context, &members,
                                     &main_by_reference, &blame))
        return NULL;
    Express *self = (Express *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->gate = (Gate *)Py_NewRef(gate);
    self->port = (Port *)Py_NewRef(port);
    self->mailbox = (Mailbox *)Py_NewRef(mailbox);
    self->blame = Py_NewRef(blame);
    self->context = context;
    self->own = self->port->rank;
    self->main_by_reference = main_by_reference;
    self->members = read_members(members, &self->size);
    if (self->members == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    for (uint32_t number = 0; number < self->size; number++)
        if (self->members[number] == self->own)
            self->rank = number;
    return (PyObject *)self;
}

static int
express_traverse(Express *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->port);
    Py_VISIT(self->blame);
    return 0;
}

static int
express_clear(Express *self)
{
    Py_CLEAR(self->blame); /* the port is needed until the end; a cycle through it is broken there */
    return 0;
}

static void
express_dealloc(Express *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    express_clear(self);
    Py_XDECREF(self->gate);
    Py_XDECREF(self->port);
    Py_XDECREF(self->mailbox);
    PyMem_Free(self->members);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef express_methods[] = {
    {"send", (PyCFunction)(void (*)(void))express_send, METH_FASTCALL,
     "Send an object to a rank with a tag; return False, having done nothing, where the long way has to be taken."},
    {"recv", (PyCFunction)(void (*)(void))express_recv, METH_FASTCALL,
     "Return an object from a rank with a tag, or its Message where the codec has to see it; NOT_YET where it has not\n"
     "come, and whatever comes next may be it; NOTHING where the long way has to be taken."},
    {"spread", (PyCFunction)(void (*)(void))express_spread, METH_FASTCALL,
     "Send an object to all other ranks, from the next one on, with a tag; return to how many it was sent."},
    {"collect", (PyCFunction)(void (*)(void))express_collect, METH_FASTCALL,
     "Put what has come from ranks with a tag where a list has NOT_YET; return how many are left, or -1 where the long\n"
     "way has to be taken. A Message is put where the codec has to see it."},
    {NULL},
};

static PyType_Slot express_slots[] = {
    {Py_tp_doc, "The short way of a communicator's small messages."},
    {Py_tp_new, express_new},
    {Py_tp_dealloc, express_dealloc},
    {Py_tp_traverse, express_traverse},
    {Py_tp_clear, express_clear},
    {Py_tp_methods, express_methods},
    {0, NULL},
};

static PyType_Spec express_spec = {
    .name = "klyng_mp._core.Express",
    .basicsize = sizeof(Express),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = express_slots,
};

int
express_setup(PyObject *module, CoreState *state)
{
    state->express_type = add_type(module, &express_spec);
    return state->express_type == NULL ? -1 : 0;
}
