/* The lock of an endpoint, and beside it the few words that tell whether the short way through it is open.

   It is a re-entrant lock like threading's own, with the same methods, so that Python takes it by `with`. The short
   way (express.c) does not take it at all: that runs from its first look to its last store without releasing the
   interpreter lock, so it is enough that nobody else is inside. Only C code can look that fast, hence a lock of ours. */

#include "core.h"

static PyObject *
gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "Gate() takes no arguments");
        return NULL;
    }
    Gate *self = (Gate *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->lock = PyThread_allocate_lock();
    if (self->lock == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void
gate_dealloc(Gate *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->lock != NULL) {
        if (self->count)
            PyThread_release_lock(self->lock);
        PyThread_free_lock(self->lock);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* Waits for the lock while signal handlers go on being called; 0 with it, or -1 with the exception that one raised.
   In slices; see SLICE_MS. */
static int
wait_for_lock(PyThread_type_lock lock)
{
    for (;;) {
        PyLockStatus status;
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(lock, SLICE_MS * 1000, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_ACQUIRED)
            return 0;
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

bool
gate_enter_now(Gate *self)
{
    const unsigned long me = PyThread_get_thread_ident();
    if (!(self->count && self->owner == me) && !PyThread_acquire_lock(self->lock, NOWAIT_LOCK))
        return false;
    self->owner = me;
    self->count++;
    return true;
}

void
gate_leave(Gate *self)
{
    if (--self->count == 0) {
        self->owner = 0;
        PyThread_release_lock(self->lock);
    }
}

static PyObject *
gate_acquire(Gate *self, PyObject *Py_UNUSED(ignored))
{
    if (gate_enter_now(self))
        Py_RETURN_TRUE;
    if (wait_for_lock(self->lock) < 0)
        return NULL;
    self->owner = PyThread_get_thread_ident();
    self->count = 1;
    Py_RETURN_TRUE;
}

static PyObject *
gate_release(Gate *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->count || self->owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release a lock that this thread does not hold");
        return NULL;
    }
    gate_leave(self);
    Py_RETURN_NONE;
}

static PyObject *
gate_exit(Gate *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(count))
{
    return gate_release(self, NULL);
}

static PyObject *
gate_is_owned(Gate *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->count && self->owner == PyThread_get_thread_ident());
}

static PyMethodDef gate_methods[] = {
    {"acquire", (PyCFunction)gate_acquire, METH_NOARGS, "Take the lock, which this thread may have already."},
    {"release", (PyCFunction)gate_release, METH_NOARGS, "Give the lock back, once for each time that it was taken."},
    {"__enter__", (PyCFunction)gate_acquire, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))gate_exit, METH_FASTCALL, NULL},
    {"_is_owned", (PyCFunction)gate_is_owned, METH_NOARGS, "Tell whether the calling thread holds it."},
    {NULL},
};

static PyMemberDef gate_members[] = {
    {"lowest", T_ULONGLONG, offsetof(Gate, lowest), 0, "contexts below it belong to runs that are over"},
    {"waiting", T_LONG, offsetof(Gate, waiting), 0, "how many threads wait"},
    {"stopped", T_BOOL, offsetof(Gate, stopped), 0, "whether the endpoint refuses everything"},
    {NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_doc, "A re-entrant lock, and whether the short way past it is open."},
    {Py_tp_new, gate_new},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_methods, gate_methods},
    {Py_tp_members, gate_members},
    {0, NULL},
};

static PyType_Spec gate_spec = {
    .name = "klyng_mp._core.Gate",
    .basicsize = sizeof(Gate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = gate_slots,
};

int
gate_setup(PyObject *module, CoreState *state)
{
    state->gate_type = add_type(module, &gate_spec);
    return state->gate_type == NULL ? -1 : 0;
}
