/* Barriers of ranks that share memory.

   The page of a rank has a word for each of the first MEETINGS communicators of a run: the run, and the number of its
   latest barrier there, counted from 1. Who comes writes its own word and looks at those of the others: so nothing is
   sent, and only who comes last wakes anybody, namely all that sleep. Who is about to sleep says so, and looks again:
   either it sees the last word, or the last one sees that it sleeps (Dekker's, as in port.c).

   A word says what its rank has come to, and stays: who gave up a barrier lets others pass it. */

#include "port.h"

typedef struct Meeting {
    PyObject_HEAD
    Port *port;
    Gate *gate;
    uint64_t context;
    uint32_t *members; /* the endpoint's number of each rank */
    uint32_t size, slot;
    uint64_t word; /* of the present barrier */
} Meeting;

static _Atomic uint64_t *
word_of(const Meeting *self, uint32_t rank)
{
    return &page_of(self->port, self->members[rank])->met[self->slot];
}

static bool
has_come(const Meeting *self, uint32_t rank)
{
    const uint64_t word = atomic_load_explicit(word_of(self, rank), memory_order_acquire);
    return word >> 32 == self->word >> 32 && word >= self->word;
}

bool
meeting_is_over(const Meeting *self)
{
    for (uint32_t rank = 0; rank < self->size; rank++)
        if (!has_come(self, rank))
            return false;
    return true;
}

static bool
look(Port *port, Ring *Py_UNUSED(ring))
{
    return port->meeting == NULL || meeting_is_over(port->meeting);
}

/* Reads a number into the word that stands for it; false where it is too large for one, or with an exception. */
static bool
read_word(const Meeting *self, PyObject *object, uint64_t *word)
{
    const uint64_t number = PyLong_AsUnsignedLongLong(object);
    if ((number == (uint64_t)-1 && PyErr_Occurred()) || number >= UINT32_MAX)
        return false;
    *word = self->context >> 32 << 32 | (number + 1);
    return true;
}

/* Wakes those that sleep: those that have come, as they may go on; or those that have not, as they may sleep in another
   collective, and have to see that the ranks disagree. */
static void
wake(const Meeting *self, bool come)
{
    for (uint32_t rank = 0; rank < self->size; rank++)
        if (self->members[rank] != self->port->rank && has_come(self, rank) == come)
            port_ring_bell(self->port, self->members[rank]);
}

/* Comes to a barrier, or looks at it again; returns whether all have come, or None where this cannot be known here. */
static PyObject *
meeting_arrive(Meeting *self, PyObject *number)
{
    Port *port = self->port;
    uint64_t word;
    if (!read_word(self, number, &word))
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    if (port->released || self->gate->stopped || self->context < self->gate->lowest)
        return Py_NewRef(Py_None);
    const bool fresh = self->word != word;
    if (fresh) {
        self->word = word;
        atomic_store(&page_of(port, port->rank)->met[self->slot], word);
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (!meeting_is_over(self)) {
        port->meeting = self;
        if (fresh)
            wake(self, false);
        if (!port_spin(port, look, NULL))
            Py_RETURN_FALSE;
    } else if (fresh) {
        wake(self, true);
    }
    port->meeting = NULL;
    if (port_call(port) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *
meeting_leave(Meeting *self, PyObject *Py_UNUSED(ignored))
{
    if (self->port->meeting == self)
        self->port->meeting = NULL;
    Py_RETURN_NONE;
}

/* Returns the ranks that have not come to the present barrier. */
static PyObject *
meeting_absent(Meeting *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *ranks = PyList_New(0);
    for (uint32_t rank = 0; ranks != NULL && !self->port->released && rank < self->size; rank++) {
        if (has_come(self, rank))
            continue;
        PyObject *number = PyLong_FromUnsignedLong(rank);
        if (number == NULL || PyList_Append(ranks, number) < 0)
            Py_CLEAR(ranks);
        Py_XDECREF(number);
    }
    return ranks;
}

/* Returns a rank other than this one that waits, or has waited last, in the barrier of a number; None if there is none. */
static PyObject *
meeting_find(Meeting *self, PyObject *number)
{
    uint64_t word;
    if (!read_word(self, number, &word))
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    for (uint32_t rank = 0; !self->port->released && rank < self->size; rank++)
        if (self->members[rank] != self->port->rank &&
            atomic_load_explicit(word_of(self, rank), memory_order_acquire) == word)
            return PyLong_FromUnsignedLong(rank);
    Py_RETURN_NONE;
}

/* -- The type ----------------------------------------------------------------------------------------------- */

static int
read_members(Meeting *self, PyObject *members)
{
    PyObject *list = PySequence_Fast(members, "the members of a communicator are a sequence");
    if (list == NULL)
        return -1;
    self->size = (uint32_t)PySequence_Fast_GET_SIZE(list);
    self->members = PyMem_Calloc(self->size + 1, sizeof *self->members);
    if (self->members == NULL)
        PyErr_NoMemory();
    for (uint32_t rank = 0; self->members != NULL && rank < self->size; rank++) {
        const unsigned long member = PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(list, rank));
        if (PyErr_Occurred())
            break;
        self->members[rank] = (uint32_t)member;
        if (member < self->port->size)
            continue;
        PyErr_Format(PyExc_ValueError, "there is no rank %lu", member);
        break;
    }
    Py_DECREF(list);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
meeting_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gate", "port", "context", "slot", "members", NULL};
    CoreState *state = state_of_type(type);
    PyObject *gate, *port, *members;
    unsigned long long context;
    unsigned int slot;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!KIO:Meeting", names, state->gate_type, &gate, state->port_type,
                                     &port, &context, &slot, &members))
        return NULL;
    if (slot >= MEETINGS) {
        PyErr_Format(PyExc_ValueError, "there are %d places for meetings, and no number %u", MEETINGS, slot);
        return NULL;
    }
    Meeting *self = (Meeting *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->gate = (Gate *)Py_NewRef(gate);
    self->port = (Port *)Py_NewRef(port);
    self->context = context;
    self->slot = slot;
    if (read_members(self, members) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
meeting_traverse(Meeting *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->port);
    return 0;
}

static void
meeting_dealloc(Meeting *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->port != NULL && self->port->meeting == self)
        self->port->meeting = NULL;
    Py_XDECREF(self->gate);
    Py_XDECREF(self->port);
    PyMem_Free(self->members);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef meeting_methods[] = {
    {"arrive", (PyCFunction)meeting_arrive, METH_O,
     "Come to the barrier of a number, or look at it again; return whether all have come, or None where that cannot be\n"
     "known here. Until then, or `leave`, this rank is woken when they have."},
    {"leave", (PyCFunction)meeting_leave, METH_NOARGS, "Wait for the others no more; they may pass."},
    {"absent", (PyCFunction)meeting_absent, METH_NOARGS, "Return the ranks that have not come to the present barrier."},
    {"find", (PyCFunction)meeting_find, METH_O, "Return another rank whose latest barrier has this number, or None."},
    {NULL},
};

static PyType_Slot meeting_slots[] = {
    {Py_tp_doc, "The barriers of a communicator whose ranks share memory."},
    {Py_tp_new, meeting_new},
    {Py_tp_dealloc, meeting_dealloc},
    {Py_tp_traverse, meeting_traverse},
    {Py_tp_methods, meeting_methods},
    {0, NULL},
};

static PyType_Spec meeting_spec = {
    .name = "klyng_mp._core.Meeting",
    .basicsize = sizeof(Meeting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = meeting_slots,
};

int
meeting_setup(PyObject *module, CoreState *state)
{
    state->meeting_type = add_type(module, &meeting_spec);
    return state->meeting_type != NULL && PyModule_AddIntConstant(module, "MEETINGS", MEETINGS) == 0 ? 0 : -1;
}
