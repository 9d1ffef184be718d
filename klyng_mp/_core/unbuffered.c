/* What looks like memory and is none: values and arrays that hosts share (klyng_mp/objects/values.py).

   Before Python 3.12 no class written in Python hears that somebody wants its buffer, so numpy.frombuffer and memoryview
   would only say that it has none. A subclass of this one is asked by its own `get_obj`, which says what to do instead. */

#include "core.h"

static int
unbuffered_get(PyObject *self, Py_buffer *view, int Py_UNUSED(flags))
{
    view->obj = NULL;
    PyObject *found = PyObject_CallMethod(self, "get_obj", NULL);
    if (found != NULL) {
        Py_DECREF(found);
        PyErr_SetString(PyExc_BufferError, "there is no buffer");
    }
    return -1;
}

static PyType_Slot unbuffered_slots[] = {
    {Py_tp_doc, "A base class: who wants a buffer of an instance gets what its method ``get_obj`` raises."},
    {Py_bf_getbuffer, unbuffered_get},
    {0, NULL},
};

static PyType_Spec unbuffered_spec = {
    .name = "klyng_mp._core.Unbuffered",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = unbuffered_slots,
};

int
unbuffered_setup(PyObject *module, CoreState *state)
{
    state->unbuffered_type = add_type(module, &unbuffered_spec);
    return state->unbuffered_type == NULL ? -1 : 0;
}
