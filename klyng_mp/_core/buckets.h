/* Lists, and the tables of a mailbox: what was put under a key of source and tag, oldest first. */

#ifndef KLYNG_MP_BUCKETS_H
#define KLYNG_MP_BUCKETS_H

#include "core.h"

#define FIRST_SLOTS 8

struct Bucket {
    Bucket *next; /* in its slot */
    Link chain;   /* the head of its members */
    int64_t source, number;
    PyObject *text; /* owned */
    uint64_t hash;
};

typedef struct {
    Bucket **slots;
    size_t slot_count, count;
} Table;

static inline void
link_start(Link *head)
{
    head->next = head->previous = head;
}

static inline bool
link_is_empty(const Link *head)
{
    return head->next == head;
}

static inline void
link_insert(Link *after, Link *new)
{
    new->previous = after;
    new->next = after->next;
    after->next->previous = new;
    after->next = new;
}

static inline void
link_remove(Link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->next = link->previous = NULL;
}

static inline uint64_t
mix(uint64_t value)
{
    value *= 0x9e3779b97f4a7c15u; /* 2**64 over the golden ratio: neighbours land far apart (Knuth, TAOCP 3, 6.4) */
    return value ^ value >> 32;
}

uint64_t hash_key(const Envelope *key);
bool same_tag(int64_t number, PyObject *text, const Envelope *key);

/* Returns the bucket of a key whose hash this is, or NULL. */
Bucket *table_find(const Table *table, const Envelope *key, uint64_t hash);

/* Returns the bucket of a key, a new one where there is none; NULL with an exception. */
Bucket *table_get(Table *table, const Envelope *key);

/* Frees a bucket that is empty, so that no key that was used once stays. */
void table_drop_if_empty(Table *table, Bucket *bucket);

#endif
