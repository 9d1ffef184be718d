/* Large messages, cut into pieces on one side and put together on the other.

   The body of such a message is one stream of bytes: its tag if that is a text, a PartEntry for each buffer, its head,
   the buffers that are not in slabs. A Parcel holds views of the sender's own memory and copies from them piece by piece; `keep`
   makes it independent of them. An Assembly copies every piece to where it belongs: a head is bytes, a buffer is a
   bytearray of its own, which whoever receives it may write to. */

#include "port.h"

#include <string.h>
#include <unistd.h>

#define MAX_PARTS 65536       /* wire/frames.py: Limits.parts */
#define MAX_TAG 65536         /* Limits.tag_bytes */
#define MAX_PART ((uint64_t)1 << 48) /* Limits.part_bytes */

/* A buffer, as the front of a message tells of it. */
typedef struct {
    uint64_t length;
    SlabKey slab;
} PartEntry;

_Static_assert(sizeof(PartEntry) == 24, "nothing between its words is sent");

#define PART_ENTRY sizeof(PartEntry)

/* -- Parcels ---------------------------------------------------------------------------------------------- */

/* Returns bytes with the text tag, if there is one, and of each buffer the length and the slab. */
static PyObject *
make_front(Message *message, PyObject *buffers, const Py_buffer *views, const SlabPart *slabs)
{
    Py_ssize_t text_size = 0, count = PySequence_Fast_GET_SIZE(buffers);
    const char *text = "";
    if (message->text != NULL && (text = PyUnicode_AsUTF8AndSize(message->text, &text_size)) == NULL)
        return NULL;
    PyObject *front = PyBytes_FromStringAndSize(NULL, text_size + (Py_ssize_t)PART_ENTRY * count);
    if (front == NULL)
        return NULL;
    char *place = PyBytes_AS_STRING(front);
    memcpy(place, text, (size_t)text_size);
    place += text_size;
    for (Py_ssize_t index = 0; index < count; index++, place += PART_ENTRY) {
        const PartEntry entry = {(uint64_t)views[index].len, slabs[index].key};
        memcpy(place, &entry, sizeof entry);
    }
    return front;
}

/* Sends those buffers in slabs that are slabs already, or are worth it and find one. */
static void
book_slabs(Parcel *self, uint32_t peer, const Message *message, PyObject *buffers)
{
    Port *port = self->port;
    if (port->out[peer].addressed < message->incarnation)
        port->out[peer].addressed = message->incarnation;
    uint8_t code = message->code & (uint8_t)~SYNCHRONOUS;
    bool possible = code != BYTES_APART && code != BYTEARRAY_APART &&
                    atomic_load_explicit(&page_of(port, peer)->takes_slabs, memory_order_relaxed);
    bool lands = self->slab_count == 1 && atomic_load_explicit(&port->out[peer].header->lands, memory_order_relaxed);
    for (Py_ssize_t index = 0; possible && index < self->slab_count; index++) {
        const Py_buffer *view = &self->views[index + 2];
        PyObject *buffer = PySequence_Fast_GET_ITEM(buffers, index);
        SlabPart *part = &self->slabs[index];
        if (Py_IS_TYPE(buffer, port->state->slab_type) &&
            slab_give(port, peer, message->incarnation, buffer, &part->key))
            part->given = Py_NewRef(buffer);
        else if (!lands && view->len >= SLAB_MIN &&
                 slab_book(port, peer, message->incarnation, (uint64_t)view->len, &part->key))
            self->filled = false;
        if (part->key.use)
            self->slab_bytes += (uint64_t)view->len;
    }
}

static int
take_views(Parcel *self, uint32_t peer, Message *message, PyObject *buffers)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(buffers);
    self->views = PyMem_Calloc((size_t)count + 2, sizeof(Py_buffer));
    self->slabs = PyMem_Calloc((size_t)count + 1, sizeof *self->slabs);
    if (self->views == NULL || self->slabs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->view_count = count + 2;
    for (Py_ssize_t index = 0; index < count; index++)
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(buffers, index), &self->views[index + 2], PyBUF_SIMPLE) < 0)
            return -1;
    self->slab_count = count;
    self->filled = true;
    book_slabs(self, peer, message, buffers);
    PyObject *front = make_front(message, buffers, self->views + 2, self->slabs);
    if (front == NULL)
        return -1;
    int result = PyObject_GetBuffer(front, &self->views[0], PyBUF_SIMPLE);
    Py_DECREF(front);
    if (result == 0)
        result = PyObject_GetBuffer(message->head, &self->views[1], PyBUF_SIMPLE);
    return result;
}

Parcel *
parcel_new(Port *port, uint32_t peer, Message *message)
{
    CoreState *state = port->state;
    PyObject *buffers = PySequence_Fast(message->buffers, "a message's buffers are a sequence");
    if (buffers == NULL)
        return NULL;
    Parcel *self = (Parcel *)state->parcel_type->tp_alloc(state->parcel_type, 0);
    if (self != NULL)
        self->port = (Port *)Py_NewRef(port);
    if (self == NULL || take_views(self, peer, message, buffers) < 0) {
        Py_XDECREF(self);
        Py_DECREF(buffers);
        return NULL;
    }
    self->message = Py_NewRef(message);
    self->record = (Record){
        .code = message->code,
        .text = message->text != NULL,
        .incarnation = message->incarnation,
        .parts = (uint32_t)PySequence_Fast_GET_SIZE(buffers),
        .context = message->context,
        .tag = message->text != NULL ? self->views[0].len - (Py_ssize_t)PART_ENTRY * self->slab_count : message->number,
        .head_size = (uint64_t)PyBytes_GET_SIZE(message->head),
    };
    for (Py_ssize_t index = 0; index < self->view_count; index++)
        if (index < 2 || !self->slabs[index - 2].key.use)
            self->left += (uint64_t)self->views[index].len;
    if (self->left == (uint64_t)self->views[0].len)
        parcel_fill(self); /* nothing follows the front that could say that they are */
    Py_DECREF(buffers);
    return self;
}

void
parcel_copy(Parcel *self, char *place, size_t size)
{
    self->left -= size;
    while (size) {
        Py_buffer *view = &self->views[self->view];
        if (self->view >= 2 && self->view - 2 < self->slab_count && self->slabs[self->view - 2].key.use) {
            self->view++; /* it is not in the body */
            continue;
        }
        size_t rest = (size_t)view->len - self->offset, now = size < rest ? size : rest;
        if (now) /* an empty buffer may be nowhere */
            memcpy(place, (const char *)view->buf + self->offset, now);
        place += now;
        size -= now;
        self->offset += now;
        if (self->offset == (size_t)view->len) {
            self->view++;
            self->offset = 0;
        }
    }
}

void
parcel_fill(Parcel *self)
{
    for (Py_ssize_t index = 0; !self->filled && index < self->slab_count; index++)
        if (self->slabs[index].key.use && self->slabs[index].given == NULL)
            slab_fill(self->port, &self->slabs[index].key, &self->views[index + 2]);
    self->filled = true;
}

static void
release_views(Parcel *self)
{
    for (Py_ssize_t index = 0; index < self->view_count; index++)
        PyBuffer_Release(&self->views[index]);
    PyMem_Free(self->views);
    self->views = NULL;
    self->view_count = 0;
}

static PyObject *
parcel_keep(Parcel *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->left);
    Py_buffer *views = PyMem_Calloc(1, sizeof *views);
    if (copy == NULL || views == NULL || PyObject_GetBuffer(copy, views, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(copy);
        PyMem_Free(views);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    parcel_fill(self);
    uint64_t left = self->left;
    parcel_copy(self, PyBytes_AS_STRING(copy), (size_t)left);
    Py_DECREF(copy); /* the view holds it */
    release_views(self);
    Py_CLEAR(self->message);
    self->views = views;
    self->view_count = 1;
    self->view = 0; /* one that is no buffer's: it has what was left of all */
    self->offset = 0;
    self->left = left;
    Py_RETURN_NONE;
}

/* Lets a slab be as it was before, if nothing of the message has left. */
static void
drop_slab(Parcel *self, SlabPart *part)
{
    bool travels = self->started || self->port->pid != getpid(); /* a forked child has no say */
    if (part->given != NULL && !travels)
        slab_keep(part->given);
    else if (part->key.use && !travels)
        slab_take_back(self->port, &part->key);
    Py_XDECREF(part->given);
}

static void
parcel_dealloc(Parcel *self)
{
    PyTypeObject *type = Py_TYPE(self);
    release_views(self);
    for (Py_ssize_t index = 0; index < self->slab_count; index++)
        drop_slab(self, &self->slabs[index]);
    PyMem_Free(self->slabs);
    Py_XDECREF(self->port);
    Py_XDECREF(self->message);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef parcel_methods[] = {
    {"keep", (PyCFunction)parcel_keep, METH_NOARGS, "Copy what has not left, so that the sender may change its buffers."},
    {NULL},
};

static PyMemberDef parcel_members[] = {
    {"started", T_BOOL, offsetof(Parcel, started), READONLY, "whether a part of it has left"},
    {"left", T_ULONGLONG, offsetof(Parcel, left), READONLY, "bytes that have not left"},
    {NULL},
};

static PyType_Slot parcel_slots[] = {
    {Py_tp_doc, "A large message on its way out; made by Port."},
    {Py_tp_dealloc, parcel_dealloc},
    {Py_tp_methods, parcel_methods},
    {Py_tp_members, parcel_members},
    {0, NULL},
};

static PyType_Spec parcel_spec = {
    .name = "klyng_mp._core.Parcel",
    .basicsize = sizeof(Parcel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = parcel_slots,
};

int
parcel_setup(PyObject *module, CoreState *state)
{
    state->parcel_type = add_type(module, &parcel_spec);
    return state->parcel_type == NULL ? -1 : 0;
}

/* -- Assemblies ------------------------------------------------------------------------------------------- */

void
assembly_drop(Assembly *self)
{
    if (!self->active)
        return;
    PyMem_Free(self->front);
    Py_XDECREF(self->head);
    Py_XDECREF(self->buffers);
    *self = (Assembly){0};
}

int
assembly_begin(Assembly *self, Port *port, const Record *record, uint32_t source)
{
    bool possible = record->parts <= MAX_PARTS && record->head_size <= MAX_PART && record->tag >= 0 &&
                    record->text <= 1 && !(record->text && record->tag > MAX_TAG);
    if (!possible)
        return -1;
    *self = (Assembly){.active = true, .record = *record, .source = source, .port = port, .part = -1};
    self->front_size = (record->text ? (size_t)record->tag : 0) + PART_ENTRY * (size_t)record->parts;
    self->front = PyMem_Malloc(self->front_size + 1);
    self->buffers = PyList_New((Py_ssize_t)record->parts); /* made while nothing of the ring is looked at: it may
                                                              start a collection, and that any code */
    if (self->front == NULL || self->buffers == NULL) {
        assembly_drop(self);
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PartEntry
entry_of(const Assembly *self, Py_ssize_t part)
{
    PartEntry entry = {.length = self->record.head_size};
    size_t text_size = self->record.text ? (size_t)self->record.tag : 0;
    if (part >= 0)
        memcpy(&entry, self->front + text_size + PART_ENTRY * (size_t)part, sizeof entry);
    return entry;
}

/* Whether the part that is being filled may be put where it is wanted. */
static bool
can_land(const Assembly *self)
{
    const Landing *landing = &self->port->landing;
    uint8_t code = self->record.code & (uint8_t)~SYNCHRONOUS;
    bool plain = code == BYTES_APART || code == BYTEARRAY_APART || code == ARRAY;
    return plain && self->part == 0 && self->record.parts == 1 && landing->open &&
           landing_is_for(landing, &self->record, self->source) &&
           entry_of(self, 0).length == (uint64_t)landing->view.len &&
           (landing->head == NULL || (PyBytes_GET_SIZE(landing->head) == PyBytes_GET_SIZE(self->head) &&
                                      memcmp(PyBytes_AS_STRING(landing->head), PyBytes_AS_STRING(self->head),
                                             (size_t)PyBytes_GET_SIZE(self->head)) == 0));
}

/* Returns the memory of the part that is being filled, which is made when its first byte is due; NULL as
   `assembly_feed` returns -1. */
static char *
memory_of(Assembly *self)
{
    PyObject **place = self->part < 0 ? &self->head : &((PyListObject *)self->buffers)->ob_item[self->part];
    bool as_bytes = self->part < 0 ||
                    ((self->record.code & ~SYNCHRONOUS) == BYTES_APART && self->record.parts == 1);
    if (*place == NULL && can_land(self)) {
        *place = Py_NewRef(self->port->landing.object);
        self->lands = true;
        self->port->landing.open = false;
    }
    if (self->lands)
        return self->port->landing.view.buf;
    if (*place == NULL) {
        uint64_t length = entry_of(self, self->part).length;
        if (length > MAX_PART)
            return NULL;
        *place = as_bytes ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length)
                          : PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)length);
        if (*place == NULL)
            return NULL;
    }
    return as_bytes ? PyBytes_AS_STRING(*place) : PyByteArray_AS_STRING(*place);
}

/* Goes on to the next part that has bytes to come; -1 where an empty one, or one in a slab, cannot be had. */
static int
skip_filled(Assembly *self)
{
    while (self->part < (Py_ssize_t)self->record.parts) {
        PartEntry entry = entry_of(self, self->part);
        if (self->part >= 0 && entry.slab.use) {
            PyObject *object = slab_receive(self->port, &entry.slab, entry.length);
            if (object == NULL)
                return -1;
            PyList_SET_ITEM(self->buffers, self->part, object);
            self->port->bytes_received += entry.length;
        }
        else if (self->filled != entry.length)
            break;
        else if (memory_of(self) == NULL)
            return -1;
        self->part++;
        self->filled = 0;
    }
    return 0;
}

int
assembly_feed(Assembly *self, const char *data, size_t size)
{
    size_t front = self->front_size - self->front_filled, now = size < front ? size : front;
    memcpy(self->front + self->front_filled, data, now);
    self->front_filled += now;
    data += now;
    size -= now;
    if (self->front_filled < self->front_size)
        return 0;
    for (;;) {
        if (skip_filled(self) < 0)
            return -1;
        if (size == 0)
            return 0;
        if (self->part == (Py_ssize_t)self->record.parts)
            return -1; /* more than it said */
        char *place = memory_of(self);
        if (place == NULL)
            return -1;
        uint64_t rest = entry_of(self, self->part).length - self->filled;
        now = size < rest ? size : (size_t)rest;
        memcpy(place + self->filled, data, now);
        self->filled += now;
        data += now;
        size -= now;
    }
}

bool
assembly_is_whole(const Assembly *self)
{
    return self->front_filled == self->front_size && self->part == (Py_ssize_t)self->record.parts;
}

Message *
assembly_finish(CoreState *state, Assembly *self)
{
    Envelope tag = {.number = self->record.text ? 0 : self->record.tag};
    PyObject *text = NULL;
    if (self->record.text) {
        text = PyUnicode_DecodeUTF8(self->front, (Py_ssize_t)self->record.tag, "replace");
        if (text == NULL) {
            assembly_drop(self);
            return NULL;
        }
        tag.text = text;
    }
    PyObject *head = self->head, *buffers = self->buffers;
    self->head = self->buffers = NULL;
    Message *message = message_new(state, self->record.context, self->source, &tag, self->record.incarnation,
                                   self->record.code, head, buffers);
    Py_XDECREF(text);
    assembly_drop(self);
    return message;
}

/* -- Landings --------------------------------------------------------------------------------------------- */

bool
landing_is_for(const Landing *self, const Record *record, uint32_t source)
{
    return source == self->source && record->context == self->context &&
           (self->tag == ANY || (!record->text && record->tag == self->tag)); /* any tag: texts, too */
}

/* Lets a message that is on its way into the landing go on in memory of its own. */
static int
take_off(Port *self)
{
    Assembly *assembly = &self->in[self->landing.source].assembly;
    if (!assembly->active || !assembly->lands)
        return 0;
    PyObject *own = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)entry_of(assembly, 0).length);
    if (own == NULL)
        return port_give_up(self, &self->in[self->landing.source]);
    memcpy(PyByteArray_AS_STRING(own), self->landing.view.buf, assembly->part == 0 ? assembly->filled : 0);
    PyList_SetItem(assembly->buffers, 0, own);
    assembly->lands = false;
    return 0;
}

int
landing_clear(Port *self)
{
    Landing *landing = &self->landing;
    if (landing->object == NULL)
        return 0;
    int result = take_off(self);
    if (!self->released)
        atomic_store_explicit(&self->in[landing->source].header->lands, 0, memory_order_relaxed);
    PyBuffer_Release(&landing->view);
    Py_DECREF(landing->object);
    Py_XDECREF(landing->head);
    *landing = (Landing){0};
    return result;
}
