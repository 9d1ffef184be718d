/* The tables of a mailbox: chained hashing, whose buckets are lists of what was put under one key. */

#include "buckets.h"

uint64_t
hash_key(const Envelope *key)
{
    /* As str's own, whatever a subclass makes of it: nothing else is compared, and no Python code runs in here. */
    uint64_t tag = key->text == NULL ? (uint64_t)key->number
                                     : (uint64_t)PyUnicode_Type.tp_hash(key->text) ^ 0x5bd1e995u;
    return mix(tag + mix((uint64_t)key->source));
}

bool
same_tag(int64_t number, PyObject *text, const Envelope *key)
{
    if (text == NULL || key->text == NULL)
        return text == key->text && number == key->number;
    return text == key->text || PyUnicode_Compare(text, key->text) == 0;
}

Bucket *
table_find(const Table *table, const Envelope *key, uint64_t hash)
{
    if (table->count == 0)
        return NULL;
    Bucket *bucket = table->slots[hash & (table->slot_count - 1)];
    while (bucket != NULL && !(bucket->hash == hash && bucket->source == key->source &&
                               same_tag(bucket->number, bucket->text, key)))
        bucket = bucket->next;
    return bucket;
}

static int
table_grow(Table *table)
{
    size_t wanted = table->slot_count ? 2 * table->slot_count : FIRST_SLOTS;
    Bucket **slots = PyMem_Calloc(wanted, sizeof *slots);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t index = 0; index < table->slot_count; index++)
        for (Bucket *bucket = table->slots[index], *next; bucket != NULL; bucket = next) {
            next = bucket->next;
            Bucket **slot = &slots[bucket->hash & (wanted - 1)];
            bucket->next = *slot;
            *slot = bucket;
        }
    PyMem_Free(table->slots);
    table->slots = slots;
    table->slot_count = wanted;
    return 0;
}

Bucket *
table_get(Table *table, const Envelope *key)
{
    uint64_t hash = hash_key(key);
    Bucket *bucket = table_find(table, key, hash);
    if (bucket != NULL)
        return bucket;
    if (table->count >= table->slot_count && table_grow(table) < 0)
        return NULL;
    bucket = PyMem_Malloc(sizeof *bucket);
    if (bucket == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    Bucket **slot = &table->slots[hash & (table->slot_count - 1)];
    *bucket = (Bucket){.next = *slot, .source = key->source, .number = key->number, .hash = hash};
    bucket->text = Py_XNewRef(key->text);
    link_start(&bucket->chain);
    *slot = bucket;
    table->count++;
    return bucket;
}

void
table_drop_if_empty(Table *table, Bucket *bucket)
{
    if (!link_is_empty(&bucket->chain))
        return;
    Bucket **place = &table->slots[bucket->hash & (table->slot_count - 1)];
    while (*place != bucket)
        place = &(*place)->next;
    *place = bucket->next;
    table->count--;
    Py_XDECREF(bucket->text);
    PyMem_Free(bucket);
}
