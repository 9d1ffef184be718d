/* Waiters: who waits on a Condition, in the order in which they came; and Flag: the word of an Event.

   The waiters' memory is a table of places, of which only those that were ever used become memory:

       magic, sleepers, numbers (two ints for whoever made it: a Barrier keeps its state there)
       places used, first free, first and last in line, length of the line, dead
       places: who, flag, next, previous, counts

   A place is free, in line, or called: taken out of the line by who notifies, and not yet given back by its owner.
   Whoever changes the table holds the Condition's lock, which is broken where one is killed that does; so only the flag,
   which is slept on without the lock, is atomic. There is room for more than 8000 that wait at once.

   The first in line is called only if it lives. If the kernel has just woken it, it does; if it was not asleep, its
   process is looked for. The dead are taken out of the table, and counted where their place says that they count: a
   Barrier must know which of its parties will never leave.

   A Flag's word is odd while it is set and goes up by one with each change, so that who slept sees that it was set also
   where it has been cleared again since. Nobody holds it, so a kill does no harm. */

#include "shared.h"

#include <limits.h>

#define WAITERS_MAGIC 0x6b6d7774u /* "kmwt" */
#define FLAG_MAGIC 0x6b6d666cu    /* "kmfl" */
#define TABLE_SIZE (256u << 10)
#define FLAG_SIZE 4096
#define NOBODY UINT32_MAX

enum { FREE, IN_LINE, CALLED };

typedef struct {
    Identity who;
    _Atomic uint32_t flag;
    uint32_t next, previous; /* in line; `next` also among those that are free */
    uint32_t counts;
} Place;

typedef struct {
    uint32_t magic;
    Sleepers sleepers;
    int32_t numbers[2];
    uint32_t used, free, first, last, length, dead;
    _Alignas(64) Place places[];
} Table;

#define PLACES ((TABLE_SIZE - sizeof(Table)) / sizeof(Place))

typedef struct {
    PyObject_HEAD
    Shared shared;
    Table *table;
    Patience patience;
} Waiters;

/* -- The line ----------------------------------------------------------------------------------------------- */

static void
put_last(Table *table, uint32_t number)
{
    Place *place = &table->places[number];
    place->next = NOBODY;
    place->previous = table->last;
    if (table->last == NOBODY)
        table->first = number;
    else
        table->places[table->last].next = number;
    table->last = number;
    table->length++;
    atomic_store(&place->flag, IN_LINE);
}

static void
take_out(Table *table, uint32_t number)
{
    const Place *place = &table->places[number];
    if (place->previous == NOBODY)
        table->first = place->next;
    else
        table->places[place->previous].next = place->next;
    if (place->next == NOBODY)
        table->last = place->previous;
    else
        table->places[place->next].previous = place->previous;
    table->length--;
}

static void
set_free(Table *table, uint32_t number)
{
    Place *place = &table->places[number];
    place->who = 0;
    place->next = table->free;
    table->free = number;
    atomic_store(&place->flag, FREE);
}

static void
count_dead(Table *table, uint32_t number)
{
    table->dead += table->places[number].counts;
    set_free(table, number);
}

/* Takes out all whose processes have ended. */
static void
bury(Table *table)
{
    for (uint32_t number = 0; number < table->used; number++) {
        const uint32_t flag = atomic_load(&table->places[number].flag);
        if (flag == FREE || is_alive(table->places[number].who))
            continue;
        if (flag == IN_LINE)
            take_out(table, number);
        count_dead(table, number);
    }
}

static PyObject *
waiters_add(Waiters *self, PyObject *counts)
{
    Table *table = self->table;
    const int counted = PyObject_IsTrue(counts);
    if (counted < 0)
        return NULL;
    if (table->free == NOBODY && table->used >= PLACES)
        bury(table);
    const uint32_t number = table->free == NOBODY ? table->used : table->free;
    if (number >= PLACES) {
        PyErr_Format(PyExc_RuntimeError, "%zu threads wait on this Condition, and there is no room for more", PLACES);
        return NULL;
    }
    Place *place = &table->places[number];
    if (table->free == NOBODY)
        table->used++;
    else
        table->free = place->next;
    place->who = identity();
    place->counts = (uint32_t)counted;
    put_last(table, number);
    return PyLong_FromUnsignedLong(number);
}

/* Reads the number of a place of this process; -1 with an exception if it is none. */
static int64_t
read_place(Waiters *self, PyObject *object)
{
    const unsigned long number = PyLong_AsUnsignedLong(object);
    if (number == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (number >= self->table->used || self->table->places[number].who != identity()) {
        PyErr_Format(PyExc_ValueError, "place %lu is not of this process", number);
        return -1;
    }
    return (int64_t)number;
}

static PyObject *
waiters_remove(Waiters *self, PyObject *object)
{
    const int64_t number = read_place(self, object);
    if (number < 0)
        return NULL;
    const bool called = atomic_load(&self->table->places[number].flag) == CALLED;
    if (!called)
        take_out(self->table, (uint32_t)number);
    set_free(self->table, (uint32_t)number);
    return PyBool_FromLong(called);
}

static PyObject *
waiters_wake(Waiters *self, PyObject *Py_UNUSED(ignored))
{
    Table *table = self->table;
    while (table->first != NOBODY) {
        const uint32_t number = table->first;
        Place *place = &table->places[number];
        take_out(table, number);
        note_cpu(&table->sleepers);
        atomic_store(&place->flag, CALLED);
        if (wake(&place->flag, 1) > 0 || is_alive(place->who))
            Py_RETURN_TRUE;
        count_dead(table, number);
    }
    Py_RETURN_FALSE;
}

static PyObject *
waiters_bury(Waiters *self, PyObject *Py_UNUSED(ignored))
{
    bury(self->table);
    const uint32_t dead = self->table->dead;
    self->table->dead = 0;
    return PyLong_FromUnsignedLong(dead);
}

static PyObject *
waiters_wait(Waiters *self, PyObject *args)
{
    PyObject *object, *timeout;
    int64_t until;
    if (!PyArg_ParseTuple(args, "OO:wait", &object, &timeout) || read_deadline(timeout, &until) < 0)
        return NULL;
    const int64_t number = read_place(self, object);
    if (number < 0)
        return NULL;
    _Atomic uint32_t *flag = &self->table->places[number].flag;
    while (atomic_load(flag) == IN_LINE)
        switch (look_and_sleep_on(flag, IN_LINE, &self->table->sleepers, &self->patience, until)) {
        case LOOK_AGAIN:
        case TIME_TO_LOOK:
            break;
        case TOO_LATE:
            Py_RETURN_FALSE;
        case INTERRUPTED:
            return NULL;
        }
    Py_RETURN_TRUE;
}

/* -- Waiters as Python sees them ---------------------------------------------------------------------------- */

static PyObject *
waiters_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"travels", NULL};
    int travels;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p:Waiters", names, &travels))
        return NULL;
    Waiters *self = (Waiters *)type->tp_alloc(type, 0);
    if (self == NULL || shared_make(&self->shared, TABLE_SIZE, travels) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    Table *table = self->table = self->shared.base;
    table->free = table->first = table->last = NOBODY;
    table->magic = WAITERS_MAGIC;
    return (PyObject *)self;
}

static PyObject *
waiters_rebuild(PyTypeObject *type, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:_rebuild", &fd))
        return NULL;
    Waiters *self = (Waiters *)type->tp_alloc(type, 0);
    if (self == NULL || shared_open(&self->shared, fd, TABLE_SIZE, WAITERS_MAGIC) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    self->table = self->shared.base;
    return (PyObject *)self;
}

static void
waiters_dealloc(Waiters *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->shared.base != NULL)
        shared_close(&self->shared);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t
waiters_length(Waiters *self)
{
    return (Py_ssize_t)self->table->length;
}

static int
waiters_buffer(Waiters *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->table->numbers, sizeof self->table->numbers, 0, flags);
}

static PyObject *
waiters_handle(Waiters *self, void *Py_UNUSED(closure))
{
    return shared_handle(&self->shared);
}

static PyObject *
waiters_travels(Waiters *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->shared.fd >= 0);
}

static PyMethodDef waiters_methods[] = {
    {"add", (PyCFunction)waiters_add, METH_O,
     "Put this thread last in line and return its place; tell whether it counts should its process die."},
    {"wait", (PyCFunction)waiters_wait, METH_VARARGS,
     "Sleep until a place is called, or a timeout is over; tell which: wait(place, timeout) -> bool. Needs no lock."},
    {"remove", (PyCFunction)waiters_remove, METH_O, "Give a place back; tell whether it had been called."},
    {"wake", (PyCFunction)waiters_wake, METH_NOARGS, "Call the first in line that lives; tell whether there was one."},
    {"bury", (PyCFunction)waiters_bury, METH_NOARGS,
     "Take out the dead; return how many that count were found since the last time."},
    {"_rebuild", (PyCFunction)waiters_rebuild, METH_CLASS | METH_VARARGS, "Return those of a memfd, which they then own."},
    {NULL},
};

static PyGetSetDef waiters_getset[] = {
    {"handle", (getter)waiters_handle, NULL, "The memfd, or an address where only forks share it."},
    {"travels", (getter)waiters_travels, NULL, "Whether it may go to processes that are not forked from this one."},
    {NULL},
};

static PyType_Slot waiters_slots[] = {
    {Py_tp_doc, "Who waits on a Condition. But for `wait`, its lock must be held."},
    {Py_tp_new, waiters_new},
    {Py_tp_dealloc, waiters_dealloc},
    {Py_tp_methods, waiters_methods},
    {Py_tp_getset, waiters_getset},
    {Py_sq_length, waiters_length},
    {Py_bf_getbuffer, waiters_buffer},
    {0, NULL},
};

static PyType_Spec waiters_spec = {
    .name = "klyng_mp._core.Waiters",
    .basicsize = sizeof(Waiters),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = waiters_slots,
};

/* -- Flag --------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t magic;
    _Atomic uint32_t word;
    Sleepers sleepers;
} Signal;

typedef struct {
    PyObject_HEAD
    Shared shared;
    Signal *signal;
    Patience patience;
} Flag;

static bool
is_set(const Flag *self)
{
    return atomic_load(&self->signal->word) & 1;
}

static PyObject *
flag_is_set(Flag *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_set(self));
}

/* Makes the word odd, or even; tells whether it was not. */
static bool
turn(Flag *self, uint32_t odd)
{
    uint32_t word = atomic_load(&self->signal->word);
    note_cpu(&self->signal->sleepers);
    while ((word & 1) != odd)
        if (atomic_compare_exchange_weak(&self->signal->word, &word, word + 1))
            return true;
    return false;
}

static PyObject *
flag_set(Flag *self, PyObject *Py_UNUSED(ignored))
{
    if (turn(self, 1) && atomic_load(&self->signal->sleepers.count) > 0)
        wake(&self->signal->word, INT_MAX);
    Py_RETURN_NONE;
}

static PyObject *
flag_clear(Flag *self, PyObject *Py_UNUSED(ignored))
{
    turn(self, 0);
    Py_RETURN_NONE;
}

static PyObject *
flag_wait(Flag *self, PyObject *timeout)
{
    int64_t until;
    const uint32_t before = atomic_load(&self->signal->word);
    if (before & 1)
        Py_RETURN_TRUE;
    if (read_deadline(timeout, &until) < 0)
        return NULL;
    while (atomic_load(&self->signal->word) == before)
        switch (look_and_sleep_on(&self->signal->word, before, &self->signal->sleepers, &self->patience, until)) {
        case LOOK_AGAIN:
        case TIME_TO_LOOK:
            break;
        case TOO_LATE:
            Py_RETURN_FALSE;
        case INTERRUPTED:
            return NULL;
        }
    Py_RETURN_TRUE;
}

static PyObject *
flag_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"travels", NULL};
    int travels;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p:Flag", names, &travels))
        return NULL;
    Flag *self = (Flag *)type->tp_alloc(type, 0);
    if (self == NULL || shared_make(&self->shared, FLAG_SIZE, travels) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    self->signal = self->shared.base;
    self->signal->magic = FLAG_MAGIC;
    return (PyObject *)self;
}

static PyObject *
flag_rebuild(PyTypeObject *type, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:_rebuild", &fd))
        return NULL;
    Flag *self = (Flag *)type->tp_alloc(type, 0);
    if (self == NULL || shared_open(&self->shared, fd, FLAG_SIZE, FLAG_MAGIC) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    self->signal = self->shared.base;
    return (PyObject *)self;
}

static void
flag_dealloc(Flag *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->shared.base != NULL)
        shared_close(&self->shared);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
flag_handle(Flag *self, void *Py_UNUSED(closure))
{
    return shared_handle(&self->shared);
}

static PyObject *
flag_travels(Flag *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->shared.fd >= 0);
}

static PyMethodDef flag_methods[] = {
    {"is_set", (PyCFunction)flag_is_set, METH_NOARGS, "Tell whether it is set."},
    {"set", (PyCFunction)flag_set, METH_NOARGS, "Set it, and wake all that wait."},
    {"clear", (PyCFunction)flag_clear, METH_NOARGS, "Reset it."},
    {"wait", (PyCFunction)flag_wait, METH_O, "Wait until it is or was set; tell whether that was in time."},
    {"_rebuild", (PyCFunction)flag_rebuild, METH_CLASS | METH_VARARGS, "Return that of a memfd, which it then owns."},
    {NULL},
};

static PyGetSetDef flag_getset[] = {
    {"handle", (getter)flag_handle, NULL, "The memfd, or an address where only forks share it."},
    {"travels", (getter)flag_travels, NULL, "Whether it may go to processes that are not forked from this one."},
    {NULL},
};

static PyType_Slot flag_slots[] = {
    {Py_tp_doc, "A flag that processes share and can wait for."},
    {Py_tp_new, flag_new},
    {Py_tp_dealloc, flag_dealloc},
    {Py_tp_methods, flag_methods},
    {Py_tp_getset, flag_getset},
    {0, NULL},
};

static PyType_Spec flag_spec = {
    .name = "klyng_mp._core.Flag",
    .basicsize = sizeof(Flag),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = flag_slots,
};

int
waiters_setup(PyObject *module, CoreState *state)
{
    state->waiters_type = add_type(module, &waiters_spec);
    if (state->waiters_type == NULL)
        return -1;
    state->flag_type = add_type(module, &flag_spec);
    return state->flag_type == NULL ? -1 : 0;
}
