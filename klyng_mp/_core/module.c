/* klyng_mp._core: matching and moving messages between the ranks of one host, natively; and locks.

   These parts, each with its own essay:

       gate.c       the lock of an endpoint, and whether the short way is open
       message.c    one message
       mailbox.c    matching (mailbox_type.c: as Python sees it)
       port.c       rings in shared memory (port_type.c: as Python sees it; parcel.c: messages in pieces)
       slab.c       large buffers that are copied once
       express.c    the short way of a small message through all of them (local.c: between ranks of one process;
                    fence.c: past a mailbox, by messages that others move)
       shared.c     what locks are made of: semlock.c (locks and semaphores), waiters.c (conditions and events)
       unbuffered.c what has no memory, and says so
       crew.c       tasks of a pool on their way out (ledger.c: what its parent knows; bench.c: what its workers do)

   What moves messages never sleeps. The module has no global state but who this process is (shared.c); it needs the
   interpreter lock. */

#include "core.h"

PyObject *core_segment_size(PyObject *module, PyObject *args);
PyObject *core_place_of_end(PyObject *module, PyObject *rank);
PyObject *core_leave_locks(PyObject *module, PyObject *ignored);
PyObject *core_pack_tasks(PyObject *module, PyObject *args);

PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL && !PyErr_Occurred())
        PyErr_NoMemory(); /* CPython 3.11 forgets to say so where it has none for the name */
    if (type != NULL && PyModule_AddType(module, type) < 0)
        Py_CLEAR(type);
    return type;
}

static int
find_pickle(CoreState *state)
{
    PyObject *pickle = PyImport_ImportModule("_pickle");
    if (pickle == NULL)
        return -1;
    /* Nothing is called once there is an exception: it may be lost, or found where it does not belong. */
    bool found = (state->dumps = PyObject_GetAttrString(pickle, "dumps")) != NULL &&
                 (state->loads = PyObject_GetAttrString(pickle, "loads")) != NULL &&
                 (state->dumps_names = Py_BuildValue("(s)", "buffer_callback")) != NULL &&
                 (state->loads_names = Py_BuildValue("(s)", "buffers")) != NULL &&
                 (state->protocol = PyLong_FromLong(5)) != NULL && (state->no_buffers = PyTuple_New(0)) != NULL;
    Py_DECREF(pickle);
    return found ? 0 : -1;
}

static int
core_exec(PyObject *module)
{
    CoreState *state = PyModule_GetState(module);
    if (find_pickle(state) < 0)
        return -1;
    state->nothing = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (state->nothing == NULL || PyModule_AddObjectRef(module, "NOTHING", state->nothing) < 0)
        return -1;
    state->not_yet = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (state->not_yet == NULL || PyModule_AddObjectRef(module, "NOT_YET", state->not_yet) < 0)
        return -1;
    if (gate_setup(module, state) < 0 || message_setup(module, state) < 0 || mailbox_setup(module, state) < 0 ||
        parcel_setup(module, state) < 0 || slab_setup(module, state) < 0 || port_setup(module, state) < 0 ||
        head_setup(module, state) < 0 || express_setup(module, state) < 0 || local_setup(module, state) < 0 ||
        fence_setup(module, state) < 0 ||
        meeting_setup(module, state) < 0 || semlock_setup(module, state) < 0 || waiters_setup(module, state) < 0 ||
        queue_setup(module, state) < 0 || mapping_setup(module, state) < 0 ||
        ledger_setup(module, state) < 0 || bench_setup(module, state) < 0 || unbuffered_setup(module, state) < 0)
        return -1;
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    CoreState *state = PyModule_GetState(module);
    Py_VISIT(state->gate_type);
    Py_VISIT(state->message_type);
    Py_VISIT(state->receive_type);
    Py_VISIT(state->mailbox_type);
    Py_VISIT(state->parcel_type);
    Py_VISIT(state->slab_type);
    Py_VISIT(state->port_type);
    Py_VISIT(state->express_type);
    Py_VISIT(state->local_type);
    Py_VISIT(state->fence_type);
    Py_VISIT(state->keeper_type);
    Py_VISIT(state->meeting_type);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->mapping_type);
    Py_VISIT(state->semlock_type);
    Py_VISIT(state->waiters_type);
    Py_VISIT(state->flag_type);
    Py_VISIT(state->tally_type);
    Py_VISIT(state->ledger_type);
    Py_VISIT(state->bench_type);
    Py_VISIT(state->unbuffered_type);
    Py_VISIT(state->dumps);
    Py_VISIT(state->loads);
    return 0;
}

static int
core_clear(PyObject *module)
{
    CoreState *state = PyModule_GetState(module);
    Py_CLEAR(state->gate_type);
    Py_CLEAR(state->message_type);
    Py_CLEAR(state->receive_type);
    Py_CLEAR(state->mailbox_type);
    Py_CLEAR(state->parcel_type);
    Py_CLEAR(state->slab_type);
    Py_CLEAR(state->port_type);
    Py_CLEAR(state->express_type);
    Py_CLEAR(state->local_type);
    Py_CLEAR(state->fence_type);
    Py_CLEAR(state->keeper_type);
    Py_CLEAR(state->meeting_type);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->mapping_type);
    Py_CLEAR(state->semlock_type);
    Py_CLEAR(state->waiters_type);
    Py_CLEAR(state->flag_type);
    Py_CLEAR(state->tally_type);
    Py_CLEAR(state->ledger_type);
    Py_CLEAR(state->bench_type);
    Py_CLEAR(state->unbuffered_type);
    Py_CLEAR(state->nothing);
    Py_CLEAR(state->not_yet);
    Py_CLEAR(state->dumps);
    Py_CLEAR(state->loads);
    Py_CLEAR(state->dumps_names);
    Py_CLEAR(state->loads_names);
    Py_CLEAR(state->protocol);
    Py_CLEAR(state->no_buffers);
    return 0;
}

static void
core_free(void *module)
{
    core_clear(module);
}

static PyMethodDef core_methods[] = {
    {"segment_size", core_segment_size, METH_VARARGS,
     "Return the bytes of the segment for a number of ranks and a ring's size, with pools of slabs or without."},
    {"place_of_end", core_place_of_end, METH_O,
     "Return where in a segment its owner writes, as four bytes, which incarnation of a rank has ended."},
    {"leave_locks", core_leave_locks, METH_NOARGS,
     "Let all locks that this process holds be those of a process that ended by itself, and was not killed."},
    {"pack_tasks", core_pack_tasks, METH_VARARGS,
     "Take items of an iterator and write them as tasks; return them as bytes, how many they are, what ended it (0: there\n"
     "are as many, or as many bytes, as were allowed; 1: the iterator; 2: an item that needs the codec; 3: an exception of\n"
     "the iterator), and that item or exception. Arguments: the iterator, most tasks, most bytes, main_by_reference."},
    {NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "klyng_mp._core",
    .m_doc = "Matching and moving messages between the ranks of one host, and locks.",
    .m_size = sizeof(CoreState),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
