/* The mailbox and its receives as Python sees them: arguments in, objects out. What happens in between is matching, and
   told in mailbox.c. */

#include "mailbox.h"

#include <stddef.h>

/* -- Receive ------------------------------------------------------------------------------------------------ */

static PyObject *
receive_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"context", "source", "tag", NULL};
    unsigned long long context;
    long long source;
    PyObject *tag;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KLO:Receive", names, &context, &source, &tag))
        return NULL;
    int64_t number;
    PyObject *text;
    if (read_tag(tag, &number, &text) < 0)
        return NULL;
    Receive *self = (Receive *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->context = context;
    self->source = source;
    self->number = number;
    self->text = Py_XNewRef(text);
    return (PyObject *)self;
}

static void
receive_dealloc(Receive *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->text);
    Py_XDECREF(self->message);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
receive_tag(Receive *self, void *Py_UNUSED(closure))
{
    return tag_object(self->number, self->text);
}

static PyObject *
receive_done(Receive *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->message != NULL);
}

static PyMemberDef receive_members[] = {
    {"context", T_ULONGLONG, offsetof(Receive, context), READONLY, "exactly this one"},
    {"source", T_LONGLONG, offsetof(Receive, source), READONLY, "a sender's number, or ANY_SOURCE"},
    {"message", T_OBJECT, offsetof(Receive, message), READONLY, "what it matched, or None"},
    {"withdrawn", T_BOOL, offsetof(Receive, withdrawn), READONLY, "it was taken back, so it never will match"},
    {"order", T_ULONGLONG, offsetof(Receive, order), READONLY, "when it was posted, counted by its mailbox"},
    {NULL},
};

static PyGetSetDef receive_properties[] = {
    {"tag", (getter)receive_tag, NULL, "a tag, or ANY_TAG", NULL},
    {"done", (getter)receive_done, NULL, "whether it has its message", NULL},
    {NULL},
};

static PyType_Slot receive_slots[] = {
    {Py_tp_doc, "A posted receive; see klyng_mp.wire.mailbox.Receive."},
    {Py_tp_new, receive_new},
    {Py_tp_dealloc, receive_dealloc},
    {Py_tp_members, receive_members},
    {Py_tp_getset, receive_properties},
    {0, NULL},
};

static PyType_Spec receive_spec = {
    .name = "klyng_mp._core.Receive",
    .basicsize = sizeof(Receive),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = receive_slots,
};

/* -- Mailbox ------------------------------------------------------------------------------------------------ */

static PyObject *
mailbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "Mailbox() takes no arguments");
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static void
mailbox_dealloc(Mailbox *self)
{
    PyTypeObject *type = Py_TYPE(self);
    mailbox_empty(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t
slot_length(Mailbox *self)
{
    return (Py_ssize_t)mailbox_length(self);
}

static Message *
as_message(Mailbox *self, PyObject *object)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    if (!Py_IS_TYPE(object, state->message_type)) {
        PyErr_Format(PyExc_TypeError, "a mailbox holds messages, not %R", object);
        return NULL;
    }
    return (Message *)object;
}

static Receive *
as_receive(Mailbox *self, PyObject *object)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    if (!Py_IS_TYPE(object, state->receive_type)) {
        PyErr_Format(PyExc_TypeError, "a mailbox posts receives, not %R", object);
        return NULL;
    }
    return (Receive *)object;
}

static PyObject *
method_deliver(Mailbox *self, PyObject *object)
{
    Message *message = as_message(self, object);
    if (message == NULL || mailbox_deliver(self, message) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int
read_wanted(PyObject *const *args, Py_ssize_t count, uint64_t *context, Envelope *wanted)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "context, source and tag are needed");
        return -1;
    }
    *context = PyLong_AsUnsignedLongLong(args[0]);
    if (*context == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    wanted->source = PyLong_AsLongLong(args[1]);
    if (wanted->source == -1 && PyErr_Occurred())
        return -1;
    return read_tag(args[2], &wanted->number, &wanted->text);
}

static PyObject *
method_take(Mailbox *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t context;
    Envelope wanted;
    if (read_wanted(args, count, &context, &wanted) < 0)
        return NULL;
    Message *message = mailbox_take(self, context, &wanted);
    return message == NULL ? Py_NewRef(Py_None) : (PyObject *)message;
}

static PyObject *
method_peek(Mailbox *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t context;
    Envelope wanted;
    if (read_wanted(args, count, &context, &wanted) < 0)
        return NULL;
    Message *message = mailbox_peek(self, context, &wanted);
    return Py_NewRef(message == NULL ? Py_None : (PyObject *)message);
}

static PyObject *
method_is_posted(Mailbox *self, PyObject *object)
{
    uint64_t context = PyLong_AsUnsignedLongLong(object);
    if (context == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(!mailbox_is_unposted(self, context));
}

static PyObject *
method_is_stored(Mailbox *self, PyObject *object)
{
    uint64_t context = PyLong_AsUnsignedLongLong(object);
    if (context == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    const Envelope any = {.source = ANY, .number = ANY};
    return PyBool_FromLong(mailbox_peek(self, context, &any) != NULL);
}

static PyObject *
method_restore(Mailbox *self, PyObject *object)
{
    Message *message = as_message(self, object);
    if (message == NULL || mailbox_restore(self, message) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
method_post(Mailbox *self, PyObject *object)
{
    Receive *receive = as_receive(self, object);
    if (receive == NULL || mailbox_post(self, receive) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
method_withdraw(Mailbox *self, PyObject *object)
{
    Receive *receive = as_receive(self, object);
    return receive == NULL ? NULL : PyBool_FromLong(mailbox_withdraw(self, receive));
}

static PyObject *
method_waiting(Mailbox *self, PyObject *args)
{
    unsigned long long low, high;
    if (!PyArg_ParseTuple(args, "KK:waiting", &low, &high))
        return NULL;
    return mailbox_waiting(self, low, high);
}

static PyObject *
method_waiting_below(Mailbox *self, PyObject *args)
{
    unsigned long long context;
    long long tag;
    if (!PyArg_ParseTuple(args, "KL:waiting_below", &context, &tag))
        return NULL;
    PyObject *all = mailbox_waiting(self, context, context + 1);
    PyObject *found = all == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t index = 0; found != NULL && index < PyList_GET_SIZE(all); index++) {
        const Message *message = (Message *)PyList_GET_ITEM(all, index);
        if (message->text == NULL && message->number < tag && PyList_Append(found, (PyObject *)message) < 0)
            Py_CLEAR(found);
    }
    Py_XDECREF(all);
    return found;
}

static PyObject *
method_drop_below(Mailbox *self, PyObject *object)
{
    uint64_t context = PyLong_AsUnsignedLongLong(object);
    if (context == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    return mailbox_drop_below(self, context);
}

static PyObject *
method_taken(Mailbox *self, PyObject *object)
{
    uint64_t run = PyLong_AsUnsignedLongLong(object);
    if (run == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromSize_t(mailbox_taken(self, run));
}

static PyObject *
method_take_unanswered(Mailbox *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    for (Message *message = self->first_unanswered; message != NULL; message = message->unanswered)
        if (PyList_Append(list, (PyObject *)message) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    mailbox_forget_unanswered(self);
    return list;
}

static PyMethodDef mailbox_methods[] = {
    {"deliver", (PyCFunction)method_deliver, METH_O, "Give the message to the first receive that accepts it, or keep it."},
    {"take", (PyCFunction)(void (*)(void))method_take, METH_FASTCALL, "Remove and return the first message that matches."},
    {"peek", (PyCFunction)(void (*)(void))method_peek, METH_FASTCALL, "Return the first message that matches."},
    {"is_stored", (PyCFunction)method_is_stored, METH_O, "Tell whether any message waits in a context."},
    {"is_posted", (PyCFunction)method_is_posted, METH_O, "Tell whether any receive is posted in a context."},
    {"restore", (PyCFunction)method_restore, METH_O, "Put back a message that was taken and not used."},
    {"post", (PyCFunction)method_post, METH_O, "Match the receive with a waiting message, or with one that comes."},
    {"withdraw", (PyCFunction)method_withdraw, METH_O, "Take a posted receive back."},
    {"drop_below", (PyCFunction)method_drop_below, METH_O, "Forget everything in contexts from 1 up to this one."},
    {"waiting", (PyCFunction)method_waiting, METH_VARARGS, "Return the messages of a range of contexts."},
    {"waiting_below", (PyCFunction)method_waiting_below, METH_VARARGS,
     "Return the messages of a context whose tags are numbers below a given one."},
    {"taken", (PyCFunction)method_taken, METH_O, "Return how many of a run's messages have been received."},
    {"take_unanswered", (PyCFunction)method_take_unanswered, METH_NOARGS,
     "Remove and return the matched messages whose senders want to know."},
    {NULL},
};

static PyMemberDef mailbox_members[] = {
    {"dropped", T_ULONGLONG, offsetof(Mailbox, dropped), READONLY, "how many messages came too late"},
    {"unanswered", T_PYSSIZET, offsetof(Mailbox, unanswered), READONLY, "how many messages wait for take_unanswered"},
    {NULL},
};

static PyType_Slot mailbox_slots[] = {
    {Py_tp_doc, "Messages and receives that wait for each other; see klyng_mp.wire.mailbox.Mailbox."},
    {Py_tp_new, mailbox_new},
    {Py_tp_dealloc, mailbox_dealloc},
    {Py_tp_methods, mailbox_methods},
    {Py_tp_members, mailbox_members},
    {Py_sq_length, slot_length},
    {0, NULL},
};

static PyType_Spec mailbox_spec = {
    .name = "klyng_mp._core.Mailbox",
    .basicsize = sizeof(Mailbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mailbox_slots,
};

int
mailbox_setup(PyObject *module, CoreState *state)
{
    state->receive_type = add_type(module, &receive_spec);
    if (state->receive_type == NULL)
        return -1;
    state->mailbox_type = add_type(module, &mailbox_spec);
    return state->mailbox_type == NULL ? -1 : 0;
}
