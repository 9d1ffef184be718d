/* One message: its envelope, which matching looks at, and what the codec made of the object. wire/frames.py has the
   twin and the words for it. A message is no container to the garbage collector: what it holds are bytes. */

#include "core.h"

int
read_tag(PyObject *tag, int64_t *number, PyObject **text)
{
    if (PyUnicode_Check(tag)) {
        *number = 0;
        *text = tag;
        return 0;
    }
    *text = NULL;
    *number = PyLong_AsLongLong(tag);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
tag_object(int64_t number, PyObject *text)
{
    return text != NULL ? Py_NewRef(text) : PyLong_FromLongLong(number);
}

Message *
message_new(CoreState *state, uint64_t context, uint32_t source, const Envelope *tag, uint32_t incarnation,
            uint8_t code, PyObject *head, PyObject *buffers)
{
    Message *self = (Message *)state->message_type->tp_alloc(state->message_type, 0);
    if (self == NULL) {
        Py_DECREF(head);
        Py_DECREF(buffers);
        return NULL;
    }
    self->context = context;
    self->source = source;
    self->number = tag->number;
    self->text = Py_XNewRef(tag->text);
    self->incarnation = incarnation;
    self->code = code;
    self->head = head;
    self->buffers = buffers;
    return self;
}

static int
read_unsigned(PyObject *value, const char *what, uint64_t limit, uint64_t *result)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if ((number == (unsigned long long)-1 && PyErr_Occurred()) || number > limit) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_OverflowError, "a message's %s cannot be %R", what, value);
        return -1;
    }
    *result = number;
    return 0;
}

static PyObject *
message_vectorcall(PyObject *type, PyObject *const *args, size_t flags, PyObject *names)
{
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != 7 || (names != NULL && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "Message() takes context, source, tag, incarnation, code, head and buffers");
        return NULL;
    }
    uint64_t context, source, incarnation, code;
    Envelope tag;
    if (read_unsigned(args[0], "context", UINT64_MAX, &context) < 0 ||
        read_unsigned(args[1], "source", UINT32_MAX, &source) < 0 || read_tag(args[2], &tag.number, &tag.text) < 0 ||
        read_unsigned(args[3], "incarnation", UINT32_MAX, &incarnation) < 0 ||
        read_unsigned(args[4], "code", UINT8_MAX, &code) < 0)
        return NULL;
    if (!PyBytes_Check(args[5])) {
        PyErr_Format(PyExc_TypeError, "a message's head is bytes, not %R", Py_TYPE(args[5]));
        return NULL;
    }
    return (PyObject *)message_new(state_of_type((PyTypeObject *)type), context, (uint32_t)source, &tag,
                                   (uint32_t)incarnation, (uint8_t)code, Py_NewRef(args[5]), Py_NewRef(args[6]));
}

static PyObject *
message_create(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Message() takes no keywords");
        return NULL;
    }
    return message_vectorcall((PyObject *)type, &PyTuple_GET_ITEM(args, 0), (size_t)PyTuple_GET_SIZE(args), NULL);
}

static void
message_dealloc(Message *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->text);
    Py_XDECREF(self->head);
    Py_XDECREF(self->buffers);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
message_tag(Message *self, void *Py_UNUSED(closure))
{
    return tag_object(self->number, self->text);
}

static PyObject *
message_nbytes(Message *self, void *Py_UNUSED(closure))
{
    Py_ssize_t total = PyBytes_GET_SIZE(self->head);
    PyObject *buffers = PySequence_Fast(self->buffers, "a message's buffers are a sequence");
    if (buffers == NULL)
        return NULL;
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(buffers); index++) {
        Py_buffer view;
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(buffers, index), &view, PyBUF_FULL_RO) < 0) {
            Py_DECREF(buffers);
            return NULL;
        }
        total += view.len;
        PyBuffer_Release(&view);
    }
    Py_DECREF(buffers);
    return PyLong_FromSsize_t(total);
}

static PyObject *
message_repr(Message *self)
{
    PyObject *tag = message_tag(self, NULL), *size = message_nbytes(self, NULL), *result = NULL;
    char context[32];
    PyOS_snprintf(context, sizeof context, "0x%llx", (unsigned long long)self->context);
    if (tag != NULL && size != NULL)
        result = PyUnicode_FromFormat("<Message source=%u tag=%R context=%s of %S bytes>", self->source, tag, context,
                                      size);
    Py_XDECREF(tag);
    Py_XDECREF(size);
    return result;
}

static PyMemberDef message_members[] = {
    {"context", T_ULONGLONG, offsetof(Message, context), READONLY, "the number of a communicator in a run"},
    {"source", T_UINT, offsetof(Message, source), READONLY, "the sender's number in its World"},
    {"incarnation", T_UINT, offsetof(Message, incarnation), READONLY, "of the occupant that it is meant for"},
    {"code", T_UBYTE, offsetof(Message, code), 0, "the codec's"},
    {"head", T_OBJECT_EX, offsetof(Message, head), READONLY, "the codec's first part, bytes"},
    {"arrival", T_ULONGLONG, offsetof(Message, arrival), READONLY, "the order in which a mailbox got it"},
    {NULL},
};

static PyObject *
message_buffers(Message *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->buffers);
}

static int
message_set_buffers(Message *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a message cannot be without buffers");
        return -1;
    }
    Py_SETREF(self->buffers, Py_NewRef(value));
    return 0;
}

static PyGetSetDef message_properties[] = {
    {"buffers", (getter)message_buffers, (setter)message_set_buffers, "the codec's further parts", NULL},
    {"tag", (getter)message_tag, NULL, "an int or a str", NULL},
    {"nbytes", (getter)message_nbytes, NULL, "the bytes of head and buffers together", NULL},
    {NULL},
};

static PyType_Slot message_slots[] = {
    {Py_tp_doc, "One message; see klyng_mp.wire.frames.Message."},
    {Py_tp_new, message_create},
    {Py_tp_dealloc, message_dealloc},
    {Py_tp_repr, message_repr},
    {Py_tp_members, message_members},
    {Py_tp_getset, message_properties},
    {0, NULL},
};

static PyType_Spec message_spec = {
    .name = "klyng_mp._core.Message",
    .basicsize = sizeof(Message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = message_slots,
};

int
message_setup(PyObject *module, CoreState *state)
{
    state->message_type = add_type(module, &message_spec);
    if (state->message_type == NULL)
        return -1;
    state->message_type->tp_vectorcall = message_vectorcall; /* heap types have no slot for it before 3.14 */
    return 0;
}
