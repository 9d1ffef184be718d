/* The type Queue, for Python: see queue.c. */

#include "queue.h"

#include <unistd.h>

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"memory", "travels", "reader", "writer", "bell", NULL};
    int memory, travels, reader, writer, bell;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ipiii:Queue", names, &memory, &travels, &reader, &writer, &bell))
        return NULL;
    Queue *self = (Queue *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->memory.fd = -1;
    self->reader = reader;
    self->writer = writer;
    self->bell = bell;
    if ((memory < 0 ? queue_make(self, travels) : queue_open(self, memory)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void
queue_dealloc(Queue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    shared_close(&self->memory);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
queue_result(Room room)
{
    return room == FAILED ? NULL : PyLong_FromLong(room);
}

static bool
are_two(Py_ssize_t count)
{
    if (count != 2)
        PyErr_Format(PyExc_TypeError, "2 arguments are expected, not %zd", count);
    return count == 2;
}

static bool
read_limit(PyObject *object, uint32_t *limit)
{
    *limit = (uint32_t)PyLong_AsUnsignedLongMask(object);
    return !PyErr_Occurred();
}

static PyObject *
queue_put_method(Queue *self, PyObject *const *args, Py_ssize_t count)
{
    uint32_t limit;
    if (!are_two(count) || !read_limit(args[1], &limit))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = NULL;
    if (view.len > queue_largest())
        PyErr_Format(PyExc_ValueError, "%zd bytes are more than a record may have", view.len);
    else
        result = queue_result(queue_put(self, view.buf, (uint32_t)view.len, limit));
    PyBuffer_Release(&view);
    return result;
}

static PyObject *
queue_put_descriptor_method(Queue *self, PyObject *const *args, Py_ssize_t count)
{
    int fd;
    uint32_t limit;
    if (!are_two(count) || read_int(args[0], &fd) < 0 ||
        !read_limit(args[1], &limit))
        return NULL;
    return queue_result(queue_put_descriptor(self, fd, limit));
}

static PyObject *
queue_get_method(Queue *self, PyObject *timeout)
{
    int64_t until;
    if (read_deadline(timeout, &until) < 0)
        return NULL;
    PyObject *data = NULL, *number;
    int fd = -1;
    switch (queue_get(self, until, &data, &fd)) {
    case RAISING:
        return NULL;
    case NOTHING_THERE:
        Py_RETURN_NONE;
    default:
        if (data != NULL)
            return data;
        if ((number = PyLong_FromLong(fd)) == NULL)
            close(fd);
        return number;
    }
}

static PyObject *
queue_poll_method(Queue *self, PyObject *timeout)
{
    int64_t until;
    if (read_deadline(timeout, &until) < 0)
        return NULL;
    const int there = queue_poll(self, until);
    return there < 0 ? NULL : PyBool_FromLong(there);
}

static PyObject *
queue_wait_taken_method(Queue *self, PyObject *const *args, Py_ssize_t count)
{
    int64_t until;
    uint32_t taken;
    if (!are_two(count) || !read_limit(args[0], &taken) ||
        read_deadline(args[1], &until) < 0)
        return NULL;
    const Awakening awakening = queue_wait_taken(self, taken, until);
    return awakening == INTERRUPTED ? NULL : PyBool_FromLong(awakening != TOO_LATE);
}

static PyObject *
queue_buffer_method(Queue *self, PyObject *change)
{
    int by;
    if (read_int(change, &by) < 0)
        return NULL;
    queue_buffer(self, by);
    Py_RETURN_NONE;
}

static PyObject *
queue_watch_method(Queue *self, PyObject *Py_UNUSED(ignored))
{
    queue_watch(self);
    Py_RETURN_NONE;
}

static PyObject *
queue_get_taken(Queue *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(queue_taken(self));
}

static PyObject *
queue_get_size(Queue *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(queue_size(self));
}

static PyObject *
queue_get_fd(Queue *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->memory.fd);
}

static PyMethodDef queue_methods[] = {
    {"put", (PyCFunction)(void (*)(void))queue_put_method, METH_FASTCALL,
     "Put bytes; return 0, or why not: 1, there is no room for them, or 2, there are as many as the limit says."},
    {"put_descriptor", (PyCFunction)(void (*)(void))queue_put_descriptor_method, METH_FASTCALL,
     "Put a descriptor, which stays the caller's; as put."},
    {"get", (PyCFunction)queue_get_method, METH_O,
     "Take what comes first, as bytes, or as a descriptor, which is now the caller's; None if nothing came in time."},
    {"poll", (PyCFunction)queue_poll_method, METH_O, "Wait until there is something; return whether there is."},
    {"wait_taken", (PyCFunction)(void (*)(void))queue_wait_taken_method, METH_FASTCALL,
     "Sleep until more is taken than `taken` said, or for a while; return whether there is time left."},
    {"buffer", (PyCFunction)queue_buffer_method, METH_O, "Change how many objects wait for room in some process."},
    {"watch", (PyCFunction)queue_watch_method, METH_NOARGS, "Let the bell be readable while there is something."},
    {NULL},
};

static PyGetSetDef queue_getters[] = {
    {"taken", (getter)queue_get_taken, NULL, "How far getters have come; for `wait_taken`.", NULL},
    {"size", (getter)queue_get_size, NULL, "How many objects there are, also those that wait for room.", NULL},
    {"fd", (getter)queue_get_fd, NULL, "The memory's descriptor; -1 where only forks share it.", NULL},
    {NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "A queue of bytes and descriptors in shared memory, for any number of processes."},
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getters},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "klyng_mp._core.Queue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

int
queue_setup(PyObject *module, CoreState *state)
{
    state->queue_type = add_type(module, &queue_spec);
    return state->queue_type != NULL && PyModule_AddIntConstant(module, "LARGEST_RECORD", queue_largest()) == 0 ? 0 : -1;
}
