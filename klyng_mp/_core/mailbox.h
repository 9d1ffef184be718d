/* What matching (mailbox.c) offers to the types (mailbox_type.c) beyond what core.h offers to all. */

#ifndef KLYNG_MP_MAILBOX_H
#define KLYNG_MP_MAILBOX_H

#include "core.h"

typedef struct {
    PyObject_HEAD
    uint64_t context;
    int64_t source, number;
    PyObject *text;
    PyObject *message; /* a Message, or NULL */
    uint64_t order;
    Link chain;
    Bucket *bucket; /* where it is chained, or NULL */
    char withdrawn;
} Receive;

/* As the methods of the same names. An int is 0, or -1 with an exception; then nothing has changed. */
Message *mailbox_peek(const Mailbox *self, uint64_t context, const Envelope *wanted); /* borrowed, or NULL */
int mailbox_post(Mailbox *self, Receive *receive); /* takes a reference of its own */
bool mailbox_withdraw(Mailbox *self, Receive *receive);
PyObject *mailbox_waiting(const Mailbox *self, uint64_t low, uint64_t high); /* a list, or NULL with an exception */
PyObject *mailbox_drop_below(Mailbox *self, uint64_t context);               /* likewise */
size_t mailbox_taken(const Mailbox *self, uint64_t run);
size_t mailbox_length(const Mailbox *self);
void mailbox_forget_unanswered(Mailbox *self);

/* Forgets everything; the mailbox cannot be used afterwards. */
void mailbox_empty(Mailbox *self);

#endif
