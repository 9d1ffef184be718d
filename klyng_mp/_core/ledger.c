/* What a pool's parent knows: a Tally of the results of each job, and a Ledger of the tasks that its workers have; crew.c
   tells the story. */

#include "crew.h"

/* -- Tallies: the results of one job ------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    uint64_t context;
    PyObject *results; /* a list, by the tasks' indices */
    Py_ssize_t left;
} Tally;

static PyObject *
tally_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    unsigned long long context;
    PyObject *results;
    Py_ssize_t left;
    if (!PyArg_ParseTuple(args, "KO!n:Tally", &context, &PyList_Type, &results, &left))
        return NULL;
    Tally *self = (Tally *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->context = context;
    self->results = Py_NewRef(results);
    self->left = left;
    return (PyObject *)self;
}

static int
tally_traverse(Tally *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->results);
    return 0;
}

static int
tally_clear(Tally *self)
{
    Py_CLEAR(self->results);
    return 0;
}

static void
tally_dealloc(Tally *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tally_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef tally_members[] = {
    {"context", T_ULONGLONG, offsetof(Tally, context), READONLY, "of the results"},
    {"results", T_OBJECT_EX, offsetof(Tally, results), READONLY, "the list that they are put into"},
    {"left", T_PYSSIZET, offsetof(Tally, left), 0, "how many are awaited"},
    {NULL},
};

static PyType_Slot tally_slots[] = {
    {Py_tp_doc, "The results of one job, as they come."},
    {Py_tp_new, tally_new},
    {Py_tp_dealloc, tally_dealloc},
    {Py_tp_traverse, tally_traverse},
    {Py_tp_clear, tally_clear},
    {Py_tp_members, tally_members},
    {0, NULL},
};

static PyType_Spec tally_spec = {
    .name = "klyng_mp._core.Tally",
    .basicsize = sizeof(Tally),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tally_slots,
};

/* -- The ledger: the parent's side -------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    CoreState *state;
    Port *port;
    PyObject *tallies; /* by context */
    uint64_t *answered; /* by worker */
    Tally *latest; /* borrowed from `tallies`, or NULL */
} Ledger;

typedef struct {
    Ledger *ledger;
    PyObject *list; /* what is left to Python */
} Reading;

static Tally *
find_tally(Ledger *self, uint64_t context)
{
    if (self->latest != NULL && self->latest->context == context)
        return self->latest;
    PyObject *key = PyLong_FromUnsignedLongLong(context);
    if (key == NULL) {
        PyErr_Clear(); /* then Python finds it, or has no memory either */
        return NULL;
    }
    Tally *tally = (Tally *)PyDict_GetItem(self->tallies, key);
    Py_DECREF(key);
    return self->latest = tally;
}

/* Puts a result where it belongs; false where that is not done here. */
static bool
enter_result(Reading *reading, const Small *small)
{
    Ledger *self = reading->ledger;
    if (small->code == PICKLE || !head_is_everyday(small->code, small->head_size))
        return false;
    Tally *tally = find_tally(self, small->context);
    if (tally == NULL || small->number >= PyList_GET_SIZE(tally->results))
        return false;
    PyObject *value = head_decode(self->state, NULL, small->code, small->head, small->head_size, NULL, NULL);
    if (value == NULL) {
        PyErr_Clear(); /* the codec says what is wrong with it */
        return false;
    }
    Py_INCREF(tally);
    PyList_SetItem(tally->results, small->number, value);
    if (--tally->left == 0 && PyList_Append(reading->list, (PyObject *)tally) < 0)
        PyErr_Clear(); /* who waits for it looks at `left`, too */
    Py_DECREF(tally);
    return true;
}

static int
ledger_large(void *context, Message *message)
{
    Reading *reading = context;
    if (PyList_Append(reading->list, (PyObject *)message) < 0)
        return -1;
    if (message->context & 1)
        reading->ledger->answered[message->source]++;
    return 0;
}

static int
ledger_small(void *context, const Small *small)
{
    Reading *reading = context;
    if (small->context & 1 && enter_result(reading, small)) {
        reading->ledger->answered[small->source]++;
        return 0;
    }
    PyObject *head = PyBytes_FromStringAndSize(small->head, (Py_ssize_t)small->head_size);
    if (head == NULL)
        return -1;
    const Envelope tag = {.number = small->number};
    Message *message = message_new(reading->ledger->state, small->context, small->source, &tag, small->incarnation,
                                   small->code, head, Py_NewRef(reading->ledger->state->no_buffers));
    if (message == NULL)
        return -1;
    int result = ledger_large(context, message);
    Py_DECREF(message);
    return result;
}

static PyObject *
ledger_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    CoreState *state = state_of_type(type);
    PyObject *port;
    if (!PyArg_ParseTuple(args, "O!:Ledger", state->port_type, &port))
        return NULL;
    Ledger *self = (Ledger *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->port = (Port *)Py_NewRef(port);
    self->tallies = PyDict_New();
    self->answered = PyMem_Calloc(self->port->size, sizeof *self->answered);
    if (self->tallies != NULL && self->answered != NULL)
        return (PyObject *)self;
    PyErr_NoMemory();
    Py_DECREF(self);
    return NULL;
}

static int
ledger_traverse(Ledger *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->port);
    Py_VISIT(self->tallies);
    return 0;
}

static int
ledger_clear(Ledger *self)
{
    self->latest = NULL;
    Py_CLEAR(self->tallies);
    return 0;
}

static void
ledger_dealloc(Ledger *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    ledger_clear(self);
    Py_XDECREF(self->port);
    PyMem_Free(self->answered);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Returns the word of a worker, or NULL with an exception. */
static _Atomic uint64_t *
word_of_worker(Ledger *self, PyObject *object, uint32_t *worker)
{
    unsigned long rank = PyLong_AsUnsignedLong(object);
    if (rank == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (rank >= self->port->size || self->port->released) {
        PyErr_Format(PyExc_ValueError, "there is no worker %lu here", rank);
        return NULL;
    }
    *worker = (uint32_t)rank;
    return &page_of(self->port, *worker)->ahead;
}

static PyObject *
ledger_read(Ledger *self, PyObject *object)
{
    int64_t peer = ANY;
    uint32_t worker;
    if (object != Py_None) {
        if (word_of_worker(self, object, &worker) == NULL)
            return NULL;
        peer = worker;
    }
    Reading reading = {self, PyList_New(0)};
    if (reading.list == NULL)
        return NULL;
    static const Reader reader = {ledger_small, ledger_large};
    const bool enough = false;
    if (peer == ANY)
        port_has_new_room(self->port, true);
    if (port_read(self->port, peer, &reader, &reading, &enough) < 0) {
        if (PyList_GET_SIZE(reading.list) == 0)
            Py_CLEAR(reading.list);
        else
            PyErr_Clear(); /* what was read is not lost */
    }
    return reading.list;
}

static PyObject *
ledger_count(Ledger *self, PyObject *tally)
{
    if (!Py_IS_TYPE(tally, self->state->tally_type))
        return PyErr_Format(PyExc_TypeError, "count() takes a Tally, not %R", Py_TYPE(tally));
    PyObject *key = PyLong_FromUnsignedLongLong(((Tally *)tally)->context);
    int done = key == NULL ? -1 : PyDict_SetItem(self->tallies, key, tally);
    Py_XDECREF(key);
    self->latest = NULL;
    if (done < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
ledger_forget(Ledger *self, PyObject *key)
{
    self->latest = NULL;
    if (PyDict_DelItem(self->tallies, key) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

static PyObject *
ledger_extend(Ledger *self, PyObject *args)
{
    PyObject *object;
    unsigned int count;
    uint32_t worker;
    _Atomic uint64_t *word;
    if (!PyArg_ParseTuple(args, "OI:extend", &object, &count) || (word = word_of_worker(self, object, &worker)) == NULL)
        return NULL;
    atomic_fetch_add(word, (uint64_t)count << 32);
    port_ring_bell(self->port, worker); /* it may have seen the batch, and slept again before it was allowed to begin */
    Py_RETURN_NONE;
}

static PyObject *
ledger_withdraw(Ledger *self, PyObject *args)
{
    PyObject *object;
    unsigned int most;
    uint32_t worker, taken;
    _Atomic uint64_t *word;
    if (!PyArg_ParseTuple(args, "OI:withdraw", &object, &most) || (word = word_of_worker(self, object, &worker)) == NULL)
        return NULL;
    uint64_t ahead = atomic_load(word);
    do {
        taken = left_of(ahead) < most ? left_of(ahead) : most;
    } while (taken && !atomic_compare_exchange_weak(word, &ahead, ahead_of(next_of(ahead), left_of(ahead) - taken)));
    return PyLong_FromUnsignedLong(taken);
}

static PyObject *
ledger_ahead(Ledger *self, PyObject *object)
{
    uint32_t worker;
    _Atomic uint64_t *word = word_of_worker(self, object, &worker);
    return word == NULL ? NULL : PyLong_FromUnsignedLong(left_of(atomic_load(word)));
}

static PyObject *
ledger_claimed(Ledger *self, PyObject *object)
{
    uint32_t worker;
    _Atomic uint64_t *word = word_of_worker(self, object, &worker);
    return word == NULL ? NULL : PyLong_FromUnsignedLong(next_of(atomic_load(word)));
}

static PyObject *
ledger_answered(Ledger *self, PyObject *object)
{
    uint32_t worker;
    return word_of_worker(self, object, &worker) == NULL ? NULL : PyLong_FromUnsignedLongLong(self->answered[worker]);
}

static PyObject *
ledger_reset(Ledger *self, PyObject *object)
{
    uint32_t worker;
    _Atomic uint64_t *word = word_of_worker(self, object, &worker);
    if (word == NULL)
        return NULL;
    atomic_store(word, 0);
    self->answered[worker] = 0;
    Py_RETURN_NONE;
}

static PyObject *
ledger_sleep(Ledger *self, PyObject *args)
{
    int how = crew_sleep(self->port, args, port_has_news);
    return how < 0 ? NULL : PyLong_FromLong(how);
}

static PyMethodDef ledger_methods[] = {
    {"read", (PyCFunction)ledger_read, METH_O,
     "Enter the results that are in a worker's ring, or with None in all; return the messages that are none of a Tally,\n"
     "and the Tallies that are complete."},
    {"count", (PyCFunction)ledger_count, METH_O, "Enter results into a Tally from now on."},
    {"forget", (PyCFunction)ledger_forget, METH_O, "Enter no more results with this context."},
    {"extend", (PyCFunction)ledger_extend, METH_VARARGS, "Let a worker begin so many tasks more, which are in its ring."},
    {"withdraw", (PyCFunction)ledger_withdraw, METH_VARARGS,
     "Take back at most so many of the last tasks that a worker has not begun; return how many."},
    {"ahead", (PyCFunction)ledger_ahead, METH_O, "Return how many tasks a worker has that it has not begun."},
    {"claimed", (PyCFunction)ledger_claimed, METH_O, "Return how many tasks a worker has begun, modulo 2**32."},
    {"answered", (PyCFunction)ledger_answered, METH_O, "Return how many results of a worker have been read."},
    {"reset", (PyCFunction)ledger_reset, METH_O, "Let a successor of a worker that is gone begin at task 0."},
    {"sleep", (PyCFunction)ledger_sleep, METH_VARARGS,
     "Sleep until the bell rings, which is silenced, or anything else shows at the poller: 0 if so many milliseconds are\n"
     "over, 1 for the bell or news, 2 for anything else. Arguments: poller, whom to spin for before (-1: nobody),\n"
     "results that only the last one of rings, milliseconds (-1 for ever)."},
    {NULL},
};

static PyType_Slot ledger_slots[] = {
    {Py_tp_doc, "What a pool's parent knows of the tasks that its workers have."},
    {Py_tp_new, ledger_new},
    {Py_tp_dealloc, ledger_dealloc},
    {Py_tp_traverse, ledger_traverse},
    {Py_tp_clear, ledger_clear},
    {Py_tp_methods, ledger_methods},
    {0, NULL},
};

static PyType_Spec ledger_spec = {
    .name = "klyng_mp._core.Ledger",
    .basicsize = sizeof(Ledger),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ledger_slots,
};

int
ledger_setup(PyObject *module, CoreState *state)
{
    state->tally_type = add_type(module, &tally_spec);
    state->ledger_type = add_type(module, &ledger_spec);
    return state->tally_type == NULL || state->ledger_type == NULL ? -1 : 0;
}
