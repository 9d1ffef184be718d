/* A queue of bytes in shared memory (queue.c), and its type (queue_type.c). */

#ifndef KLYNG_MP_QUEUE_H
#define KLYNG_MP_QUEUE_H

#include "shared.h"

typedef struct {
    PyObject_HEAD
    Shared memory;
    int reader, writer; /* of the socket for descriptors; the caller's */
    int bell;           /* an eventfd; the caller's */
    Patience patience;
} Queue;

/* What became of an object that was to be put. FULL: there are as many as may be. NO_ROOM: they take all the room. FAILED
   comes with an exception. */
typedef enum { ROOM, NO_ROOM, FULL, FAILED } Room;

/* Of one that was to be got. RAISING comes with an exception. */
typedef enum { TAKEN, NOTHING_THERE, RAISING } Taken;

int queue_make(Queue *self, bool travels);
int queue_open(Queue *self, int fd);
uint32_t queue_largest(void); /* record, in bytes, for which there is room some time */

/* `limit` is how many objects there may be, or 0. */
Room queue_put(Queue *self, const void *data, uint32_t size, uint32_t limit);
Room queue_put_descriptor(Queue *self, int fd, uint32_t limit);

/* TAKEN: as bytes in `data`, or as a descriptor in `fd` where that stays NULL. NOTHING_THERE: not in time. */
Taken queue_get(Queue *self, int64_t until, PyObject **data, int *fd);

int queue_poll(Queue *self, int64_t until);
uint32_t queue_taken(Queue *self);
Awakening queue_wait_taken(Queue *self, uint32_t taken, int64_t until);
uint32_t queue_size(Queue *self);
void queue_buffer(Queue *self, int change);
void queue_watch(Queue *self);

#endif
