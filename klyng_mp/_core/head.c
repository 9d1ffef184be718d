/* Objects of everyday types as heads of messages, and back; what wire/codec.py does, for those that need no more. */

#include "core.h"

#include <marshal.h>
#include <string.h>

#define PLAIN_PARTS 100 /* beyond that the look at each costs more than it saves */
#define PLAIN_DEPTH 8

/* -- Keeper: pickle's buffer_callback, which says whether an object has large buffers ------------------------ */

typedef struct {
    PyObject_HEAD
    bool found;
} Keeper;

static PyObject *
keeper_call(PyObject *object, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_buffer view;
    if (PyTuple_GET_SIZE(args) != 1 || PyObject_GetBuffer(PyTuple_GET_ITEM(args, 0), &view, PyBUF_FULL_RO) < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "one buffer at a time");
    bool large = view.len >= APART_SIZE;
    PyBuffer_Release(&view);
    if (large)
        ((Keeper *)object)->found = true;
    return PyBool_FromLong(!large);
}

static void
keeper_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot keeper_slots[] = {
    {Py_tp_call, keeper_call},
    {Py_tp_dealloc, keeper_dealloc},
    {0, NULL},
};

static PyType_Spec keeper_spec = {
    .name = "klyng_mp._core.Keeper",
    .basicsize = sizeof(Keeper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = keeper_slots,
};

/* -- Objects as heads --------------------------------------------------------------------------------------- */

static Encoding
encode_int(PyObject *object, Encoded *result)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow)
        return LONG_WAY;
    /* As int.to_bytes(bit_length() // 8 + 1, "little", signed=True). */
    unsigned long long magnitude = value < 0 ? 0ull - (unsigned long long)value : (unsigned long long)value;
    unsigned bits = magnitude ? 64 - (unsigned)__builtin_clzll(magnitude) : 0;
    result->code = INT;
    result->size = bits / 8 + 1;
    unsigned long long digits = (unsigned long long)value;
    for (size_t index = 0; index < result->size; index++) {
        result->room[index] = (char)(index < 8 ? digits >> 8 * index : value < 0 ? 0xff : 0);
    }
    result->data = result->room;
    return ENCODED;
}

static Encoding
encode_pickle(CoreState *state, bool main_by_reference, PyObject *object, Encoded *result)
{
    Keeper *keeper = (Keeper *)state->keeper_type->tp_alloc(state->keeper_type, 0);
    if (keeper == NULL)
        return RAISED;
    PyObject *const args[] = {object, state->protocol, (PyObject *)keeper};
    PyObject *head = PyObject_Vectorcall(state->dumps, args, 2, state->dumps_names);
    bool found = keeper->found;
    Py_DECREF(keeper);
    if (head == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return RAISED;
        PyErr_Clear(); /* the long way knows what else to try, and how to say what is wrong */
        return LONG_WAY;
    }
    if (found || !PyBytes_CheckExact(head) ||
        (!main_by_reference && memmem(PyBytes_AS_STRING(head), (size_t)PyBytes_GET_SIZE(head), "main__", 6))) {
        Py_DECREF(head);
        return LONG_WAY;
    }
    result->code = PICKLE;
    result->owner = head;
    result->data = PyBytes_AS_STRING(head);
    result->size = (size_t)PyBytes_GET_SIZE(head);
    return ENCODED;
}

/* Returns at most how many bytes an object that holds no others takes in a pickle. */
static Py_ssize_t
pickled_size(PyObject *object)
{
    const PyTypeObject *type = Py_TYPE(object);
    const Py_ssize_t front = 16; /* any float, and what comes before the content of others */
    if (type == &PyUnicode_Type)
        return front + PyUnicode_GET_LENGTH(object) * (PyUnicode_IS_ASCII(object) ? 1 : 4);
    if (type == &PyBytes_Type)
        return front + PyBytes_GET_SIZE(object);
    if (type == &PyLong_Type)
        return front + Py_ABS(Py_SIZE(object)) * (Py_ssize_t)sizeof(digit);
    return front;
}

/* Whether an object is put together of everyday types, of so many parts at most or, `by_size`, of bytes when pickled;
   what is left of them is written back. */
static bool
is_everyday(PyObject *object, int depth, Py_ssize_t *left, bool by_size)
{
    PyTypeObject *type = Py_TYPE(object);
    if ((*left -= by_size ? pickled_size(object) : 1) < 0)
        return false;
    if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type || type == &PyBytes_Type ||
        type == &PyBool_Type || object == Py_None)
        return true;
    if (--depth < 0)
        return false;
    if (type == &PyDict_Type) {
        Py_ssize_t position = 0;
        PyObject *key, *value;
        while (PyDict_Next(object, &position, &key, &value))
            if (!is_everyday(key, depth, left, by_size) || !is_everyday(value, depth, left, by_size))
                return false;
        return true;
    }
    if (type != &PyList_Type && type != &PyTuple_Type)
        return false;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(object); index++)
        if (!is_everyday(PySequence_Fast_GET_ITEM(object, index), depth, left, by_size))
            return false;
    return true;
}

/* Whether marshal writes an object as pickle would: it is of few everyday parts. Marshal is the faster one, but it takes
   a bytearray or an array for bytes. */
static bool
is_plain(PyObject *object)
{
    Py_ssize_t left = PLAIN_PARTS;
    return is_everyday(object, PLAIN_DEPTH, &left, false);
}

bool
head_is_small(PyObject *object, Py_ssize_t size)
{
    return is_everyday(object, PLAIN_DEPTH, &size, true);
}

static Encoding
encode_plain(PyObject *object, Encoded *result)
{
    PyObject *head = PyMarshal_WriteObjectToString(object, Py_MARSHAL_VERSION);
    if (head == NULL) {
        PyErr_Clear(); /* there is no memory for it; pickle may tell better */
        return LONG_WAY;
    }
    result->code = PLAIN;
    result->owner = head;
    result->data = PyBytes_AS_STRING(head);
    result->size = (size_t)PyBytes_GET_SIZE(head);
    return ENCODED;
}

Encoding
head_encode(CoreState *state, bool main_by_reference, PyObject *object, Encoded *result)
{
    PyTypeObject *type = Py_TYPE(object);
    result->owner = NULL;
    result->data = result->room;
    result->size = 0;
    if (type == &PyLong_Type)
        return encode_int(object, result);
    if (type == &PyDict_Type || type == &PyTuple_Type || type == &PyList_Type || type == &PySet_Type)
        return is_plain(object) ? encode_plain(object, result) : encode_pickle(state, main_by_reference, object, result);
    if (type == &PyBytes_Type) {
        result->code = BYTES;
        result->data = PyBytes_AS_STRING(object);
        result->size = (size_t)PyBytes_GET_SIZE(object);
        return result->size < APART_SIZE ? ENCODED : LONG_WAY;
    }
    if (type == &PyUnicode_Type) {
        Py_ssize_t size;
        result->code = STR;
        result->data = PyUnicode_AsUTF8AndSize(object, &size);
        if (result->data == NULL) {
            PyErr_Clear(); /* lone surrogates */
            return LONG_WAY;
        }
        result->size = (size_t)size;
        return ENCODED;
    }
    if (type == &PyFloat_Type) {
        double value = PyFloat_AS_DOUBLE(object);
        result->code = FLOAT;
        result->size = sizeof value;
        return PyFloat_Pack8(value, result->room, 1) < 0 ? RAISED : ENCODED;
    }
    if (object == Py_None) {
        result->code = NONE;
        return ENCODED;
    }
    if (type == &PyBool_Type) {
        result->code = BOOL;
        result->size = 1;
        result->room[0] = object == Py_True;
        return ENCODED;
    }
    return LONG_WAY;
}

static PyObject *
decode_pickle(CoreState *state, PyObject *blame, uint8_t code, PyObject *head, PyObject *buffers)
{
    PyObject *const args[] = {head, buffers};
    PyObject *object = PyObject_Vectorcall(state->loads, args, 1, buffers ? state->loads_names : NULL);
    if (object != NULL || !PyErr_ExceptionMatches(PyExc_Exception))
        return object;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    PyObject *blamed = PyObject_CallFunction(blame, "OBO", error, code, head);
    if (blamed != NULL) {
        PyException_SetCause(blamed, Py_NewRef(error));
        PyErr_SetObject((PyObject *)Py_TYPE(blamed), blamed);
        Py_DECREF(blamed);
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return NULL;
}

PyObject *
head_decode(CoreState *state, PyObject *blame, uint8_t code, const char *data, size_t size, PyObject *head, PyObject *buffers)
{
    switch (code) {
    case NONE:
        Py_RETURN_NONE;
    case BOOL:
        return PyBool_FromLong(size && *data);
    case INT:
        return _PyLong_FromByteArray((const unsigned char *)data, size, 1, 1);
    case FLOAT: {
        double value = PyFloat_Unpack8(data, 1);
        return value == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(value);
    }
    case STR:
        return PyUnicode_DecodeUTF8(data, (Py_ssize_t)size, "surrogatepass");
    case PLAIN:
        return PyMarshal_ReadObjectFromString(data, (Py_ssize_t)size);
    case BYTES:
        return head != NULL ? Py_NewRef(head) : PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    default:
        return decode_pickle(state, blame, code, head, buffers);
    }
}

bool
head_is_everyday(uint8_t code, size_t size)
{
    return code <= BYTES ? code != FLOAT || size == 8 : code == PICKLE || code == PLAIN;
}

int
head_setup(PyObject *module, CoreState *state)
{
    state->keeper_type = add_type(module, &keeper_spec);
    if (state->keeper_type == NULL || PyModule_AddIntConstant(module, "APART_BYTES", APART_SIZE) < 0)
        return -1;
    PyObject *codes = Py_BuildValue("(iiiiiiiiiiii)", NONE, BOOL, INT, FLOAT, STR, BYTES, BYTES_APART, BYTEARRAY,
                                    BYTEARRAY_APART, PICKLE, PLAIN, ARRAY);
    if (codes == NULL)
        return -1;
    int added = PyModule_AddObjectRef(module, "CODES", codes);
    Py_DECREF(codes);
    return added;
}
