/* The short way of a small message between ranks of one process, which take turns: into the receiver's mailbox, and
   out of it, with no layer of Python in between.

   It is what express.c is between processes that share memory, and as there whatever is unusual is left to the long
   way. An object is encoded and decoded all the same: two ranks never have one list.

   Ranks that sleep have a 1 in `asleep`, by their numbers; who is sent something is woken by a word to the scheduler,
   once. The interpreter lock is held throughout, and pickling, which may run anything, comes before what is looked at. */

#include "mailbox.h"

typedef struct {
    PyObject_HEAD
    CoreState *state;
    Gate *gate;
    Mailbox *own;
    PyObject *mailboxes; /* a list, by number; None for ranks of other processes */
    PyObject *asleep;    /* a bytearray, by number */
    PyObject *wake;      /* wake(number): it is not asleep any more */
    PyObject *blame;     /* blame(error, code, head): the CodecError for an object that cannot be rebuilt */
    uint64_t context;
    uint32_t number, size;
    uint32_t *members; /* the number of each rank; NULL where it is the rank itself */
    bool main_by_reference;
} Local;

/* Reads a rank and a tag of the usual kind, neither less than `least`; false for anything else. A rank becomes the
   number of its endpoint. */
static bool
read_usual(const Local *self, PyObject *rank, PyObject *tag, long long least, Envelope *envelope)
{
    if (!PyLong_CheckExact(rank) || !PyLong_CheckExact(tag))
        return false;
    int overflow;
    envelope->source = PyLong_AsLongLongAndOverflow(rank, &overflow);
    if (overflow || envelope->source < least || envelope->source >= self->size)
        return false;
    if (envelope->source >= 0 && self->members != NULL)
        envelope->source = self->members[envelope->source];
    envelope->number = PyLong_AsLongLongAndOverflow(tag, &overflow);
    envelope->text = NULL;
    return !overflow && envelope->number >= least;
}

/* Puts an encoded object into a mailbox; 1, or 0 where the long way has to be taken, or -1 with an exception. */
static int
put(Local *self, uint32_t number, int64_t tag, const Encoded *encoded)
{
    if (!gate_is_open(self->gate, self->context) || number >= (size_t)PyList_GET_SIZE(self->mailboxes) ||
        number >= (size_t)PyByteArray_GET_SIZE(self->asleep))
        return 0;
    PyObject *mailbox = PyList_GET_ITEM(self->mailboxes, number);
    if (!Py_IS_TYPE(mailbox, self->state->mailbox_type))
        return 0;
    PyObject *head = encoded->owner != NULL && PyBytes_CheckExact(encoded->owner) &&
                             PyBytes_AS_STRING(encoded->owner) == encoded->data &&
                             PyBytes_GET_SIZE(encoded->owner) == (Py_ssize_t)encoded->size
                         ? Py_NewRef(encoded->owner)
                         : PyBytes_FromStringAndSize(encoded->data, (Py_ssize_t)encoded->size);
    if (head == NULL)
        return -1;
    const Envelope envelope = {.source = self->number, .number = tag};
    Message *message = message_new(self->state, self->context, self->number, &envelope, 0, encoded->code, head,
                                   Py_NewRef(self->state->no_buffers));
    if (message == NULL)
        return -1;
    int result = mailbox_deliver((Mailbox *)mailbox, message);
    Py_DECREF(message);
    if (result < 0)
        return -1;
    char *asleep = PyByteArray_AS_STRING(self->asleep);
    if (asleep[number]) {
        asleep[number] = 0;
        PyObject *word = PyLong_FromUnsignedLong(number);
        PyObject *done = word == NULL ? NULL : PyObject_CallOneArg(self->wake, word);
        Py_XDECREF(word);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
    }
    return 1;
}

static PyObject *
local_send(Local *self, PyObject *const *args, Py_ssize_t count)
{
    Envelope peer;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "send() takes an object, a rank and a tag");
        return NULL;
    }
    if (!read_usual(self, args[1], args[2], 0, &peer))
        Py_RETURN_FALSE;
    Encoded encoded;
    Encoding how = head_encode(self->state, self->main_by_reference, args[0], &encoded);
    if (how == RAISED)
        return NULL;
    int sent = how == ENCODED ? put(self, (uint32_t)peer.source, peer.number, &encoded) : 0;
    Py_XDECREF(encoded.owner);
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *
local_recv(Local *self, PyObject *const *args, Py_ssize_t count)
{
    Envelope wanted;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "recv() takes a rank and a tag");
        return NULL;
    }
    if (!read_usual(self, args[0], args[1], ANY, &wanted) || !gate_is_open(self->gate, self->context) ||
        self->own->unanswered)
        return Py_NewRef(self->state->nothing);
    Message *message = mailbox_peek(self->own, self->context, &wanted);
    if (message == NULL)
        return Py_NewRef(self->state->not_yet);
    if (message->code & SYNCHRONOUS) /* its sender is to be told, which the long way does */
        return Py_NewRef(self->state->nothing);
    message = mailbox_take(self->own, self->context, &wanted);
    if (message == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(self->state->not_yet);
    if (!head_is_everyday(message->code, (size_t)PyBytes_GET_SIZE(message->head)))
        return (PyObject *)message;
    Py_ssize_t parts = PyObject_Size(message->buffers);
    PyObject *object = parts < 0 ? NULL
                                 : head_decode(self->state, self->blame, message->code,
                                               PyBytes_AS_STRING(message->head),
                                               (size_t)PyBytes_GET_SIZE(message->head), message->head,
                                               parts ? message->buffers : NULL);
    Py_DECREF(message);
    return object;
}

/* -- The type ----------------------------------------------------------------------------------------------- */

static PyObject *
local_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gate", "mailboxes", "asleep", "wake", "number", "context", "members", "main_by_reference",
                            "blame", NULL};
    CoreState *state = state_of_type(type);
    PyObject *gate, *mailboxes, *asleep, *wake, *members, *blame;
    unsigned int number;
    unsigned long long context;
    int main_by_reference;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!OIKOpO:Local", names, state->gate_type, &gate, &PyList_Type,
                                     &mailboxes, &PyByteArray_Type, &asleep, &wake, &number, &context, &members,
                                     &main_by_reference, &blame))
        return NULL;
    if (number >= (size_t)PyList_GET_SIZE(mailboxes) ||
        !Py_IS_TYPE(PyList_GET_ITEM(mailboxes, number), state->mailbox_type)) {
        PyErr_Format(PyExc_ValueError, "there is no mailbox of number %u", number);
        return NULL;
    }
    Local *self = (Local *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->gate = (Gate *)Py_NewRef(gate);
    self->own = (Mailbox *)Py_NewRef(PyList_GET_ITEM(mailboxes, number));
    self->mailboxes = Py_NewRef(mailboxes);
    self->asleep = Py_NewRef(asleep);
    self->wake = Py_NewRef(wake);
    self->blame = Py_NewRef(blame);
    self->context = context;
    self->number = number;
    self->main_by_reference = main_by_reference;
    if (PyLong_CheckExact(members)) { /* so many, each with its own number: ten thousand tables of them are too many */
        self->size = (uint32_t)PyLong_AsUnsignedLong(members);
        if (PyErr_Occurred())
            Py_CLEAR(self);
    } else if ((self->members = read_members(members, &self->size)) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
local_traverse(Local *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->mailboxes);
    Py_VISIT(self->wake);
    Py_VISIT(self->blame);
    return 0;
}

static int
local_clear(Local *self)
{
    Py_CLEAR(self->wake);
    Py_CLEAR(self->blame);
    return 0;
}

static void
local_dealloc(Local *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    local_clear(self);
    Py_XDECREF(self->gate);
    Py_XDECREF(self->own);
    Py_XDECREF(self->mailboxes);
    Py_XDECREF(self->asleep);
    PyMem_Free(self->members);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef local_methods[] = {
    {"send", (PyCFunction)(void (*)(void))local_send, METH_FASTCALL,
     "Send an object to a rank with a tag; return False, having done nothing, where the long way has to be taken."},
    {"recv", (PyCFunction)(void (*)(void))local_recv, METH_FASTCALL,
     "Return an object from a rank with a tag, or its Message where the codec has to see it; NOT_YET where it has not\n"
     "come; NOTHING where the long way has to be taken."},
    {NULL},
};

static PyType_Slot local_slots[] = {
    {Py_tp_doc, "The short way of a communicator's small messages between ranks of one process."},
    {Py_tp_new, local_new},
    {Py_tp_dealloc, local_dealloc},
    {Py_tp_traverse, local_traverse},
    {Py_tp_clear, local_clear},
    {Py_tp_methods, local_methods},
    {0, NULL},
};

static PyType_Spec local_spec = {
    .name = "klyng_mp._core.Local",
    .basicsize = sizeof(Local),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = local_slots,
};

int
local_setup(PyObject *module, CoreState *state)
{
    state->local_type = add_type(module, &local_spec);
    return state->local_type == NULL ? -1 : 0;
}
