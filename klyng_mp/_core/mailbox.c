/* The mailbox: where messages wait for receives, and receives for messages.

   wire/mailbox.py has the twin, the invariants and the suite that both pass. What differs is only how things are
   found. A context has a Box, and a box two tables, one of messages and one of receives:

       table: (source, tag) -> Bucket -> Link <-> Link <-> ...     those with this key, oldest first
       line:                             Link <-> Link <-> ...     all messages of the box, oldest first

   An exact match is one look into the table. A receive with ANY_SOURCE or ANY_TAG walks the line, whose first member
   is mostly what it wants. A message looks for the four keys that may accept it and takes the receive that was posted
   first. The tables are in buckets.c.

   Ownership: a mailbox has one reference to each message and receive in it. */

#include "buckets.h"
#include "mailbox.h"

#include <stddef.h>

#define OWNER(type, link, member) ((type *)((char *)(link) - offsetof(type, member)))

struct Box {
    Box *next; /* in its slot */
    uint64_t context;
    Table stored, posted;
    Link line;
    size_t taken;
};

/* -- Boxes ------------------------------------------------------------------------------------------------ */

static Box *
find_box(const Mailbox *self, uint64_t context)
{
    if (self->box_count == 0)
        return NULL;
    Box *box = self->boxes[mix(context) & (self->box_slots - 1)];
    while (box != NULL && box->context != context)
        box = box->next;
    return box;
}

static int
grow_boxes(Mailbox *self)
{
    size_t wanted = self->box_slots ? 2 * self->box_slots : FIRST_SLOTS;
    Box **slots = PyMem_Calloc(wanted, sizeof *slots);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t index = 0; index < self->box_slots; index++)
        for (Box *box = self->boxes[index], *next; box != NULL; box = next) {
            next = box->next;
            Box **slot = &slots[mix(box->context) & (wanted - 1)];
            box->next = *slot;
            *slot = box;
        }
    PyMem_Free(self->boxes);
    self->boxes = slots;
    self->box_slots = wanted;
    return 0;
}

/* Returns the box of a context, a new one where there is none; NULL with an exception. */
static Box *
get_box(Mailbox *self, uint64_t context)
{
    Box *box = find_box(self, context);
    if (box != NULL)
        return box;
    if (self->box_count >= self->box_slots && grow_boxes(self) < 0)
        return NULL;
    box = PyMem_Calloc(1, sizeof *box);
    if (box == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    box->context = context;
    link_start(&box->line);
    Box **slot = &self->boxes[mix(context) & (self->box_slots - 1)];
    box->next = *slot;
    *slot = box;
    self->box_count++;
    return box;
}

static bool
is_over(const Mailbox *self, uint64_t context)
{
    return context > 0 && context < self->lowest;
}

/* -- Messages in their box -------------------------------------------------------------------------------- */

/* Whether a message is in a mailbox; then there is an exception. */
static bool
is_held(const Message *message)
{
    if (message->bucket != NULL)
        PyErr_SetString(PyExc_ValueError, "the message is in a mailbox already");
    return message->bucket != NULL;
}

static int
store(Box *box, Message *message, bool first)
{
    Envelope key = {message->source, message->number, message->text};
    Bucket *bucket = table_get(&box->stored, &key);
    if (bucket == NULL)
        return -1;
    Link *place = first ? &bucket->chain : bucket->chain.previous;
    link_insert(place, &message->chain);
    /* The line is in the order of arrival, which one that is put back still has. */
    Link *before = box->line.previous;
    while (before != &box->line && OWNER(Message, before, line)->arrival > message->arrival)
        before = before->previous;
    link_insert(before, &message->line);
    message->bucket = bucket;
    Py_INCREF(message);
    return 0;
}

/* Takes a message out of its box; the mailbox's reference becomes the caller's. */
static Message *
unstore(Box *box, Message *message)
{
    link_remove(&message->chain);
    link_remove(&message->line);
    table_drop_if_empty(&box->stored, message->bucket);
    message->bucket = NULL;
    return message;
}

static Message *
find_stored(const Box *box, const Envelope *wanted)
{
    if (box == NULL || box->stored.count == 0)
        return NULL;
    bool any_tag = wanted->text == NULL && wanted->number == ANY;
    if (wanted->source != ANY && !any_tag) {
        Bucket *bucket = table_find(&box->stored, wanted, hash_key(wanted));
        return bucket == NULL ? NULL : OWNER(Message, bucket->chain.next, chain);
    }
    for (Link *link = box->line.next; link != &box->line; link = link->next) {
        Message *message = OWNER(Message, link, line);
        if ((wanted->source == ANY || wanted->source == message->source) &&
            (any_tag || same_tag(message->number, message->text, wanted)))
            return message;
    }
    return NULL;
}

/* -- Receives in their box -------------------------------------------------------------------------------- */

static void
unpost(Box *box, Receive *receive)
{
    link_remove(&receive->chain);
    table_drop_if_empty(&box->posted, receive->bucket);
    receive->bucket = NULL;
}

/* Takes out the receive that accepts such a message and was posted first; the reference becomes the caller's. */
static Receive *
take_posted(Box *box, const Message *message)
{
    if (box->posted.count == 0)
        return NULL;
    const Envelope keys[] = {
        {message->source, message->number, message->text},
        {ANY, message->number, message->text},
        {message->source, ANY, NULL},
        {ANY, ANY, NULL},
    };
    Receive *first = NULL;
    for (size_t index = 0; index < Py_ARRAY_LENGTH(keys); index++) {
        Bucket *bucket = table_find(&box->posted, &keys[index], hash_key(&keys[index]));
        if (bucket == NULL)
            continue;
        Receive *receive = OWNER(Receive, bucket->chain.next, chain);
        if (first == NULL || receive->order < first->order)
            first = receive;
    }
    if (first != NULL)
        unpost(box, first);
    return first;
}

/* -- Senders that want to know ------------------------------------------------------------------------------ */

void
mailbox_note_matched(Mailbox *self, Message *message)
{
    if (!(message->code & SYNCHRONOUS) && message->context != OBJECTS)
        return;
    message->code &= (uint8_t)~SYNCHRONOUS; /* one that is put back is not noted twice */
    if (self->last_unanswered == NULL)
        self->first_unanswered = message;
    else
        self->last_unanswered->unanswered = message;
    self->last_unanswered = (Message *)Py_NewRef(message);
    self->unanswered++;
}

void
mailbox_forget_unanswered(Mailbox *self)
{
    while (self->first_unanswered != NULL) {
        Message *message = self->first_unanswered;
        self->first_unanswered = message->unanswered;
        message->unanswered = NULL;
        Py_DECREF(message);
    }
    self->last_unanswered = NULL;
    self->unanswered = 0;
}

/* -- What is done with a mailbox ---------------------------------------------------------------------------- */

int
mailbox_deliver(Mailbox *self, Message *message)
{
    if (message->context == OBJECTS) { /* for no receive, but for the owner */
        mailbox_note_matched(self, message);
        return 0;
    }
    Box *box = find_box(self, message->context);
    if (box == NULL) {
        if (is_over(self, message->context)) {
            self->dropped++;
            return 0;
        }
        box = get_box(self, message->context);
        if (box == NULL)
            return -1;
    }
    if (is_held(message))
        return -1;
    Receive *receive = take_posted(box, message);
    if (receive != NULL) {
        box->taken++;
        receive->message = Py_NewRef(message);
        Py_DECREF(receive);
        mailbox_note_matched(self, message);
        return 0;
    }
    message->arrival = ++self->order;
    return store(box, message, false);
}

Message *
mailbox_take(Mailbox *self, uint64_t context, const Envelope *wanted)
{
    Box *box = find_box(self, context);
    Message *message = find_stored(box, wanted);
    if (message == NULL)
        return NULL;
    box->taken++;
    mailbox_note_matched(self, message);
    return unstore(box, message);
}

bool
mailbox_is_unposted(Mailbox *self, uint64_t context)
{
    Box *box = find_box(self, context);
    return box == NULL || box->posted.count == 0;
}

int
mailbox_count_taken(Mailbox *self, uint64_t context)
{
    Box *box = get_box(self, context);
    if (box == NULL)
        return -1;
    box->taken++;
    return 0;
}

Message *
mailbox_peek(const Mailbox *self, uint64_t context, const Envelope *wanted)
{
    return find_stored(find_box(self, context), wanted);
}

int
mailbox_restore(Mailbox *self, Message *message)
{
    if (is_held(message))
        return -1;
    Box *box = get_box(self, message->context);
    if (box == NULL)
        return -1;
    Receive *receive = take_posted(box, message); /* one that was posted meanwhile, by another thread */
    if (receive != NULL) {
        receive->message = Py_NewRef(message);
        Py_DECREF(receive);
        return 0;
    }
    if (store(box, message, true) < 0)
        return -1;
    box->taken--;
    return 0;
}

int
mailbox_post(Mailbox *self, Receive *receive)
{
    Box *box = find_box(self, receive->context);
    if (box == NULL) {
        if (is_over(self, receive->context)) {
            receive->withdrawn = 1;
            return 0;
        }
        box = get_box(self, receive->context);
        if (box == NULL)
            return -1;
    }
    if (receive->bucket != NULL || receive->message != NULL) {
        PyErr_SetString(PyExc_ValueError, "the receive was posted already");
        return -1;
    }
    const Envelope wanted = {receive->source, receive->number, receive->text};
    receive->message = (PyObject *)mailbox_take(self, receive->context, &wanted);
    if (receive->message != NULL)
        return 0;
    Bucket *bucket = table_get(&box->posted, &wanted);
    if (bucket == NULL)
        return -1;
    receive->order = ++self->order;
    receive->bucket = bucket;
    link_insert(bucket->chain.previous, &receive->chain);
    Py_INCREF(receive);
    return 0;
}

bool
mailbox_withdraw(Mailbox *self, Receive *receive)
{
    if (receive->message != NULL || receive->withdrawn)
        return false;
    receive->withdrawn = 1;
    if (receive->bucket != NULL) {
        unpost(find_box(self, receive->context), receive);
        Py_DECREF(receive);
    }
    return true;
}

static int
compare_arrival(const void *one, const void *other)
{
    uint64_t first = (*(Message *const *)one)->arrival, second = (*(Message *const *)other)->arrival;
    return (first > second) - (first < second);
}

PyObject *
mailbox_waiting(const Mailbox *self, uint64_t low, uint64_t high)
{
    PyObject *found = PyList_New(0);
    if (found == NULL)
        return NULL;
    for (size_t index = 0; index < self->box_slots; index++)
        for (Box *box = self->boxes[index]; box != NULL; box = box->next) {
            if (box->context < low || box->context >= high)
                continue;
            for (Link *link = box->line.next; link != &box->line; link = link->next)
                if (PyList_Append(found, (PyObject *)OWNER(Message, link, line)) < 0) {
                    Py_DECREF(found);
                    return NULL;
                }
        }
    if (PyList_GET_SIZE(found))
        qsort(((PyListObject *)found)->ob_item, (size_t)PyList_GET_SIZE(found), sizeof(PyObject *), compare_arrival);
    return found;
}

static void
free_table(Table *table)
{
    PyMem_Free(table->slots);
}

/* Forgets all that a box holds; its receives are withdrawn. */
static void
empty_box(Box *box)
{
    while (!link_is_empty(&box->line))
        Py_DECREF(unstore(box, OWNER(Message, box->line.next, line)));
    for (size_t index = 0; index < box->posted.slot_count; index++)
        while (box->posted.slots[index] != NULL) {
            Receive *receive = OWNER(Receive, box->posted.slots[index]->chain.next, chain);
            unpost(box, receive);
            receive->withdrawn = 1;
            Py_DECREF(receive);
        }
    free_table(&box->stored);
    free_table(&box->posted);
    PyMem_Free(box);
}

PyObject *
mailbox_drop_below(Mailbox *self, uint64_t context)
{
    PyObject *forgotten = mailbox_waiting(self, 1, context);
    if (forgotten == NULL)
        return NULL;
    if (context > self->lowest)
        self->lowest = context;
    for (size_t index = 0; index < self->box_slots; index++)
        for (Box **place = &self->boxes[index]; *place != NULL;) {
            Box *box = *place;
            if (box->context == 0 || box->context >= context) {
                place = &box->next;
                continue;
            }
            *place = box->next;
            self->box_count--;
            empty_box(box);
        }
    return forgotten;
}

void
mailbox_empty(Mailbox *self)
{
    mailbox_forget_unanswered(self);
    for (size_t index = 0; index < self->box_slots; index++)
        while (self->boxes[index] != NULL) {
            Box *box = self->boxes[index];
            self->boxes[index] = box->next;
            empty_box(box);
        }
    PyMem_Free(self->boxes);
}

size_t
mailbox_length(const Mailbox *self)
{
    size_t total = 0;
    for (size_t index = 0; index < self->box_slots; index++)
        for (Box *box = self->boxes[index]; box != NULL; box = box->next)
            for (Link *link = box->line.next; link != &box->line; link = link->next)
                total++;
    return total;
}

size_t
mailbox_taken(const Mailbox *self, uint64_t run)
{
    size_t total = 0;
    for (size_t index = 0; index < self->box_slots; index++)
        for (Box *box = self->boxes[index]; box != NULL; box = box->next)
            if (box->context >> 32 == run && !(box->context & 1)) /* frames.py: run_of, is_collective */
                total += box->taken;
    return total;
}
