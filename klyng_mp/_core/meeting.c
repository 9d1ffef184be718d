/* What collective calls the ranks of a communicator make, as all of them can see that share memory; and barriers.

   The page of a rank has a word for each of the first MEETINGS communicators of a run, with its latest call there:

       run, 16 bits, never 0 | number of the call, 32 bits | root and kind, 16 bits      (the last two are calls.py's tag)

   Who is about to sleep in a call looks at the others' words: one with the same number and another root or kind tells
   that the ranks disagree. Each writes its word before it looks, so that of two one sees it.

   For a barrier that is all that is needed: all have come when each has that word, or one of a later call. Nothing is
   sent, and only who comes last wakes anybody, namely all that sleep. Who is about to sleep says so, and looks again:
   either it sees the last word, or the last one sees that it sleeps (Dekker's, as in port.c).

   A word says what its rank has come to, and stays: who gave up a barrier lets others pass it. A rank clears its words
   when it begins a run, so 16 bits of the run are enough. */

#include "port.h"

typedef struct Meeting {
    PyObject_HEAD
    Port *port;
    Gate *gate;
    uint64_t context;
    uint32_t *members; /* the endpoint's number of each rank */
    uint32_t size, slot;
    uint64_t word; /* of the present barrier */
    struct Meeting *next; /* that another thread of this rank waits in */
} Meeting;

#define DETAIL_BITS 16
#define RUN_SHIFT 48
#define RUNS 0xffff /* that words tell apart; 0 is of who has made no call yet */

static uint64_t
load(const Meeting *self, uint32_t rank)
{
    return atomic_load_explicit(&page_of(self->port, self->members[rank])->met[self->slot], memory_order_acquire);
}

static bool
has_come(const Meeting *self, uint32_t rank)
{
    const uint64_t word = load(self, rank);
    if (word == self->word)
        return true;
    return word >> RUN_SHIFT == self->word >> RUN_SHIFT && word >> DETAIL_BITS > self->word >> DETAIL_BITS;
}

static bool
meeting_is_over(const Meeting *self)
{
    for (uint32_t rank = 0; rank < self->size; rank++)
        if (!has_come(self, rank))
            return false;
    return true;
}

bool
port_has_met(const Port *self)
{
    for (const Meeting *meeting = self->meetings; meeting != NULL; meeting = meeting->next)
        if (meeting_is_over(meeting))
            return true;
    return false;
}

static void
leave(Meeting *self)
{
    Meeting **place = &self->port->meetings;
    while (*place != NULL && *place != self)
        place = &(*place)->next;
    if (*place != NULL)
        *place = self->next;
    self->next = NULL;
}

/* Makes it the first of those that this rank waits in. */
static void
await(Meeting *self)
{
    leave(self);
    self->next = self->port->meetings;
    self->port->meetings = self;
}

static bool
look(Port *port, Ring *Py_UNUSED(ring))
{
    return meeting_is_over(port->meetings);
}

/* Makes the word of a tag, 0 where its number is too large for one; false with an exception. */
static bool
read_word(const Meeting *self, PyObject *object, uint64_t *word)
{
    const int64_t tag = PyLong_AsLongLong(object);
    if (tag < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a collective's tag is not negative");
        return false;
    }
    const uint64_t run = (self->context >> 32) % RUNS + 1;
    *word = (uint64_t)tag >> RUN_SHIFT ? 0 : run << RUN_SHIFT | (uint64_t)tag;
    return true;
}

/* Whether nothing can be told by looking any more. */
static bool
is_over(const Meeting *self)
{
    return self->port->released || self->gate->stopped || self->context < self->gate->lowest;
}

static bool
have_all_come(Port *Py_UNUSED(port), const void *meeting)
{
    return meeting_is_over(meeting);
}

static PyObject *
meeting_enter(Meeting *self, PyObject *tag)
{
    uint64_t word;
    if (!read_word(self, tag, &word))
        return NULL;
    if (!is_over(self))
        atomic_store_explicit(&page_of(self->port, self->port->rank)->met[self->slot], word, memory_order_release);
    Py_RETURN_NONE;
}

static PyObject *
meeting_arrive(Meeting *self, PyObject *tag)
{
    Port *port = self->port;
    uint64_t word;
    if (!read_word(self, tag, &word))
        return NULL;
    if (word == 0 || is_over(self))
        return Py_NewRef(Py_None);
    const bool fresh = self->word != word;
    if (fresh) {
        self->word = word;
        atomic_store(&page_of(port, port->rank)->met[self->slot], word);
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (!meeting_is_over(self)) {
        await(self);
        if (!port_spin(port, look, NULL) && !(fresh && port_yield(port, have_all_come, self)))
            Py_RETURN_FALSE;
    } else if (fresh) {
        for (uint32_t rank = 0; rank < self->size; rank++)
            if (self->members[rank] != port->rank)
                port_ring_bell(port, self->members[rank]);
    }
    leave(self);
    if (port_call(port, false) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *
meeting_leave(Meeting *self, PyObject *Py_UNUSED(ignored))
{
    leave(self);
    Py_RETURN_NONE;
}

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

static PyObject *
meeting_find_stranger(Meeting *self, PyObject *tag)
{
    uint64_t own;
    if (!read_word(self, tag, &own))
        return NULL;
    if (own == 0 || is_over(self))
        Py_RETURN_NONE;
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t rank = 0; rank < self->size; rank++) {
        const uint64_t word = load(self, rank);
        if (word != own && word >> DETAIL_BITS == own >> DETAIL_BITS)
            return Py_BuildValue("IK", rank, (unsigned long long)(word & ((UINT64_C(1) << RUN_SHIFT) - 1)));
    }
    Py_RETURN_NONE;
}

/* -- The type ----------------------------------------------------------------------------------------------- */

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
    self->members = read_members(members, &self->size);
    for (uint32_t rank = 0; self->members != NULL && rank < self->size; rank++)
        if (self->members[rank] >= self->port->size && !PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "there is no rank %u", self->members[rank]);
    if (PyErr_Occurred()) {
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
    if (self->port != NULL)
        leave(self);
    Py_XDECREF(self->gate);
    Py_XDECREF(self->port);
    PyMem_Free(self->members);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef meeting_methods[] = {
    {"enter", (PyCFunction)meeting_enter, METH_O, "Let the others see that this rank makes the call of a tag."},
    {"arrive", (PyCFunction)meeting_arrive, METH_O,
     "Come to the barrier of a tag, or look at it again; return whether all have come, or None where that cannot be\n"
     "known here. Until then, or `leave`, this rank is woken when they have."},
    {"leave", (PyCFunction)meeting_leave, METH_NOARGS, "Wait for the others no more; they may pass."},
    {"absent", (PyCFunction)meeting_absent, METH_NOARGS, "Return the ranks that have not come to the present barrier."},
    {"find_stranger", (PyCFunction)meeting_find_stranger, METH_O,
     "Return a rank whose latest call has the number of a tag, and is another, and that call's tag; or None."},
    {NULL},
};

static PyType_Slot meeting_slots[] = {
    {Py_tp_doc, "What calls the ranks of a communicator make that share memory, and their barriers."},
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
