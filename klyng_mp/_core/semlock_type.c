/* A SemLock as Python sees it: the interface of _multiprocessing.SemLock. */

#include "semlock.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

/* -- Methods ------------------------------------------------------------------------------------------------ */

/* Reads acquire's arguments where some are given by their names, or are wrong; borrows `timeout` from the caller. */
static int
read_by_words(PyObject *const *args, Py_ssize_t given, PyObject *names, int *block, PyObject **timeout)
{
    static char *words[] = {"block", "timeout", NULL};
    PyObject *flag = NULL, *positional = PyTuple_New(given), *named = positional == NULL ? NULL : PyDict_New();
    bool good = named != NULL;
    for (Py_ssize_t index = 0; good && index < given; index++)
        PyTuple_SET_ITEM(positional, index, Py_NewRef(args[index]));
    for (Py_ssize_t index = 0; good && names != NULL && index < PyTuple_GET_SIZE(names); index++)
        good = PyDict_SetItem(named, PyTuple_GET_ITEM(names, index), args[given + index]) == 0;
    good = good && PyArg_ParseTupleAndKeywords(positional, named, "|OO:acquire", words, &flag, timeout) &&
           (flag == NULL || read_flag(flag, block) == 0);
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return good ? 0 : -1;
}

static PyObject *
semlock_acquire(SemLock *self, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    int block = 1;
    PyObject *timeout = Py_None;
    if (names == NULL && given <= 2) {
        if (given > 0 && read_flag(args[0], &block) < 0)
            return NULL;
        if (given > 1)
            timeout = args[1];
    }
    else if (read_by_words(args, given, names, &block, &timeout) < 0)
        return NULL;
    return semlock_take(self, block, timeout);
}

static PyObject *
semlock_release(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    return semlock_give(self);
}

static PyObject *
semlock_enter(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    return semlock_take(self, true, Py_None);
}

static PyObject *
semlock_exit(SemLock *self, PyObject *const *Py_UNUSED(args), Py_ssize_t given)
{
    if (given > 3) {
        PyErr_Format(PyExc_TypeError, "__exit__ expected at most 3 arguments, got %zd", given);
        return NULL;
    }
    return semlock_give(self);
}

static uint32_t
value_of(const SemLock *self)
{
    return is_lock(self) ? atomic_load(&self->page->word) == 0 : atomic_load(&self->page->value);
}

static PyObject *
semlock_get_value(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(value_of(self));
}

static PyObject *
semlock_is_zero(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(value_of(self) == 0);
}

static PyObject *
is_mine(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(semlock_is_mine(self));
}

static PyObject *
semlock_count(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    semlock_notice_fork(self);
    return PyLong_FromLong(self->count);
}

PyObject *
core_leave_locks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    CoreState *state = PyModule_GetState(module);
    for (SemLock *lock = state->locks; lock != NULL; lock = lock->next)
        if (lock->page != NULL)
            semlock_leave(lock, true);
    Py_RETURN_NONE;
}

static PyObject *
semlock_after_fork(SemLock *self, PyObject *Py_UNUSED(ignored))
{
    self->count = 0;
    Py_RETURN_NONE;
}

/* -- The type ----------------------------------------------------------------------------------------------- */

static SemLock *
allocate(PyTypeObject *type, int kind, PyObject *label)
{
    SemLock *self = (SemLock *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->shared.fd = -1;
    self->kind = kind;
    self->label = Py_NewRef(label);
    CoreState *state = state_of_type(type);
    self->next = state->locks;
    self->place = &state->locks;
    if (self->next != NULL)
        self->next->place = &self->next;
    state->locks = self;
    return self;
}

static void
semlock_dealloc(SemLock *self)
{
    PyTypeObject *type = Py_TYPE(self);
    *self->place = self->next;
    if (self->next != NULL)
        self->next->place = self->place;
    if (self->page != NULL)
        semlock_leave(self, false); /* another object may be of the same lock */
    shared_close(&self->shared);
    Py_XDECREF(self->label);
    type->tp_free(self);
    Py_DECREF(type);
}

static int
check_numbers(int kind, int value)
{
    if (kind != RECURSIVE_MUTEX && kind != SEMAPHORE) {
        PyErr_SetString(PyExc_ValueError, "unrecognized kind");
        return -1;
    }
    if (value < 0) {
        errno = EINVAL;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *
semlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "value", "maxvalue", "label", "travels", "owned", NULL};
    PyObject *numbers[3], *label;
    int kind, value, maxvalue, travels, owned;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOUpp:SemLock", names, &numbers[0], &numbers[1], &numbers[2], &label,
                                     &travels, &owned) ||
        read_int(numbers[0], &kind) < 0 || read_int(numbers[1], &value) < 0 || read_int(numbers[2], &maxvalue) < 0 ||
        check_numbers(kind, value) < 0)
        return NULL;
    SemLock *self = allocate(type, kind, label);
    if (self == NULL || semlock_make(self, value, maxvalue, travels, owned) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
semlock_rebuild(PyTypeObject *type, PyObject *args)
{
    int fd, kind, maxvalue;
    PyObject *label;
    if (!PyArg_ParseTuple(args, "iiiU:_rebuild", &fd, &kind, &maxvalue, &label) || check_numbers(kind, maxvalue) < 0)
        return NULL;
    SemLock *self = allocate(type, kind, label);
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    if (semlock_open(self, fd) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
get_handle(SemLock *self, void *Py_UNUSED(closure))
{
    return shared_handle(&self->shared);
}

static PyObject *
get_maxvalue(SemLock *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->page->maxvalue);
}

static PyObject *
get_travels(SemLock *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->shared.fd >= 0);
}

static PyObject *
get_name(SemLock *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyMethodDef semlock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))semlock_acquire, METH_FASTCALL | METH_KEYWORDS,
     "Take it: acquire(block=True, timeout=None) -> bool."},
    {"release", (PyCFunction)semlock_release, METH_NOARGS, "Give it back."},
    {"__enter__", (PyCFunction)semlock_enter, METH_NOARGS, "Take it."},
    {"__exit__", (PyCFunction)(void (*)(void))semlock_exit, METH_FASTCALL, "Give it back."},
    {"_count", (PyCFunction)semlock_count, METH_NOARGS, "Return how often this process has it through this object."},
    {"_is_mine", (PyCFunction)is_mine, METH_NOARGS, "Tell whether this thread has it."},
    {"_get_value", (PyCFunction)semlock_get_value, METH_NOARGS, "Return how many permits are to be had."},
    {"_is_zero", (PyCFunction)semlock_is_zero, METH_NOARGS, "Tell whether no permit is to be had."},
    {"_after_fork", (PyCFunction)semlock_after_fork, METH_NOARGS, "Forget what the parent has."},
    {"_rebuild", (PyCFunction)semlock_rebuild, METH_CLASS | METH_VARARGS,
     "Return the lock of a memfd, which it then owns: _rebuild(fd, kind, maxvalue, label)."},
    {NULL},
};

static PyGetSetDef semlock_getset[] = {
    {"handle", (getter)get_handle, NULL, "The memfd, or an address where only forks share it."},
    {"travels", (getter)get_travels, NULL, "Whether it may go to processes that are not forked from this one."},
    {"maxvalue", (getter)get_maxvalue, NULL, "The most permits that there may be."},
    {"name", (getter)get_name, NULL, "None: it has no name in the system."},
    {NULL},
};

static PyMemberDef semlock_members[] = {
    {"kind", T_INT, offsetof(SemLock, kind), READONLY, "0 for a recursive lock, 1 for all others."},
    {"label", T_OBJECT, offsetof(SemLock, label), READONLY, "What errors call it."},
    {NULL},
};

static PyType_Slot semlock_slots[] = {
    {Py_tp_doc, "A lock or semaphore that processes share, and that notices the death of its holder."},
    {Py_tp_new, semlock_new},
    {Py_tp_dealloc, semlock_dealloc},
    {Py_tp_methods, semlock_methods},
    {Py_tp_getset, semlock_getset},
    {Py_tp_members, semlock_members},
    {0, NULL},
};

static PyType_Spec semlock_spec = {
    .name = "klyng_mp._core.SemLock",
    .basicsize = sizeof(SemLock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = semlock_slots,
};

int
semlock_setup(PyObject *module, CoreState *state)
{
    state->semlock_type = add_type(module, &semlock_spec);
    PyObject *most = state->semlock_type == NULL ? NULL : PyLong_FromLong(INT_MAX);
    const bool good = most != NULL && PyDict_SetItemString(state->semlock_type->tp_dict, "SEM_VALUE_MAX", most) == 0;
    Py_XDECREF(most);
    return good ? shared_setup() : -1;
}
