/* A queue of bytes for any number of processes: a ring in shared memory, which no killed process stops.

   Two words say all there is to say, `tail` and `head`: each has a count of records in its upper half, and a place in
   the ring, in units of eight bytes, in its lower half. Both only grow, and wrap. A record is written behind the tail
   and becomes part of the queue by one store of `tail`; it is copied out and is gone by one store of `head`. So
   whoever is killed, wherever it is, leaves a queue that is in order.

   Putters are kept apart by a lock that is nothing but the identity of its holder, and getters by another one. Both
   hold it for as long as a copy takes, without giving up the interpreter. Who has waited for a lock for some time looks
   whether the holder lives, and takes it over from a dead one: there is nothing to repair.

   Getters sleep on the lower half of `tail`, putters on that of `head`. Who changes it wakes one of those that sleep;
   and since that one may be killed before it does anything, the others look for themselves now and then.

   Large content is in memory of its own, whose descriptor goes through a socket of packets. Its record is a number, and
   the packet has the same number: a putter that is killed between the two leaves a packet that no record tells of, and
   a getter a record without its packet. Both are seen by their numbers and skipped.

   words          written by
   putting        whoever takes or leaves that lock: an Identity, or 0
   tail, last     whoever holds `putting`; `last` is the number of the last large record
   getting        as `putting`
   head           whoever holds `getting`
   buffered       anybody: how many objects wait in a process for room here
   watched        anybody, once: somebody polls `bell`, an eventfd that is readable while there are records

   Memory order: `tail` and `head` are stored with all that was written before, and read before what they announce. Where
   one side stores and then looks whether the other sleeps or watches, both are sequentially consistent. */

#include "queue.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0x6b6c7175u
#define UNIT 8
#define UNITS (1u << 15) /* of a ring: 256 KiB */
#define LINE 64
#define LARGE UINT32_MAX /* as the size of a record: its number follows */
#define LOCK_SPINS 200   /* a copy takes less, unless its process has lost its processor */

typedef struct {
    uint32_t magic;
    _Alignas(LINE) _Atomic Identity putting;
    _Atomic uint32_t put_sleepers;
    _Atomic uint64_t last;
    _Alignas(LINE) _Atomic Identity getting;
    _Atomic uint32_t get_sleepers;
    _Alignas(LINE) _Atomic uint64_t tail;
    Sleepers getters;
    _Alignas(LINE) _Atomic uint64_t head;
    Sleepers putters;
    _Alignas(LINE) _Atomic uint32_t buffered;
    _Atomic uint32_t watched;
    _Alignas(LINE) char ring[UNITS * UNIT];
} Memory;

typedef struct {
    uint32_t size; /* in bytes, or LARGE */
    uint32_t unused;
} Record;

static inline uint32_t
place_of(uint64_t word)
{
    return (uint32_t)word;
}

static inline uint32_t
count_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline uint64_t
word_of(uint32_t count, uint32_t place)
{
    return (uint64_t)count << 32 | place;
}

static inline uint32_t
units_of(uint32_t size)
{
    return (uint32_t)((sizeof(Record) + size + UNIT - 1) / UNIT);
}

/* -- The locks ---------------------------------------------------------------------------------------------- */

/* 0, or -1 with the exception of a signal handler. */
static int
lock(_Atomic Identity *owner, _Atomic uint32_t *sleepers)
{
    const Identity own = identity();
    for (int spins = 0;; spins++) {
        Identity found = 0;
        if (atomic_compare_exchange_strong(owner, &found, own))
            return 0;
        if (spins < LOCK_SPINS) {
            relax();
            continue;
        }
        const Awakening awakening = sleep_on(half_of(owner), (uint32_t)found, sleepers, FOREVER);
        if (awakening == INTERRUPTED)
            return -1;
        if (awakening == TIME_TO_LOOK && !is_alive(found) && atomic_compare_exchange_strong(owner, &found, own))
            return 0;
    }
}

static void
unlock(_Atomic Identity *owner, _Atomic uint32_t *sleepers)
{
    atomic_store(owner, 0);
    if (atomic_load(sleepers))
        wake(half_of(owner), 1);
}

/* -- The ring ----------------------------------------------------------------------------------------------- */

static void
copy_in(Memory *memory, uint32_t place, size_t offset, const void *data, size_t size)
{
    const size_t start = ((size_t)place * UNIT + offset) % sizeof memory->ring;
    const size_t first = size < sizeof memory->ring - start ? size : sizeof memory->ring - start;
    memcpy(memory->ring + start, data, first);
    memcpy(memory->ring, (const char *)data + first, size - first);
}

static void
copy_out(Memory *memory, uint32_t place, size_t offset, void *data, size_t size)
{
    const size_t start = ((size_t)place * UNIT + offset) % sizeof memory->ring;
    const size_t first = size < sizeof memory->ring - start ? size : sizeof memory->ring - start;
    memcpy(data, memory->ring + start, first);
    memcpy((char *)data + first, memory->ring, size - first);
}

/* Whether another object may be put; needs `putting`, or tells only what was. */
static Room
room_for(Memory *memory, uint32_t size, uint32_t limit)
{
    const uint64_t tail = atomic_load(&memory->tail), head = atomic_load(&memory->head);
    if (limit && count_of(tail) - count_of(head) + atomic_load(&memory->buffered) >= limit)
        return FULL;
    return UNITS - (place_of(tail) - place_of(head)) < units_of(size) ? NO_ROOM : ROOM;
}

static void
ring_bell(Queue *self)
{
    const uint64_t one = 1;
    if (write(self->bell, &one, sizeof one) < 0)
        return; /* it rings already */
}

/* Makes what was written part of the queue; needs `putting`. */
static void
append(Queue *self, uint32_t size)
{
    Memory *memory = self->memory.base;
    const uint64_t tail = atomic_load_explicit(&memory->tail, memory_order_relaxed);
    note_cpu(&memory->getters);
    atomic_store(&memory->tail, word_of(count_of(tail) + 1, place_of(tail) + units_of(size)));
    unlock(&memory->putting, &memory->put_sleepers);
    if (atomic_load(&memory->getters.count))
        wake(half_of(&memory->tail), 1);
    if (atomic_load(&memory->watched))
        ring_bell(self);
}

/* Takes the first record out; needs `getting`. */
static void
advance(Queue *self, uint64_t head, uint32_t size)
{
    Memory *memory = self->memory.base;
    head = word_of(count_of(head) + 1, place_of(head) + units_of(size));
    note_cpu(&memory->putters);
    atomic_store(&memory->head, head);
    if (atomic_load(&memory->watched) && atomic_load(&memory->tail) == head) {
        uint64_t rung;
        if (read(self->bell, &rung, sizeof rung) < 0)
            rung = 0;
        if (atomic_load(&memory->tail) != head)
            ring_bell(self);
    }
}

Room
queue_put(Queue *self, const void *data, uint32_t size, uint32_t limit)
{
    Memory *memory = self->memory.base;
    if (lock(&memory->putting, &memory->put_sleepers) < 0)
        return FAILED;
    const Room room = room_for(memory, size, limit);
    if (room != ROOM) {
        unlock(&memory->putting, &memory->put_sleepers);
        return room;
    }
    const uint32_t place = place_of(atomic_load_explicit(&memory->tail, memory_order_relaxed));
    const Record record = {.size = size};
    copy_in(memory, place, 0, &record, sizeof record);
    copy_in(memory, place, sizeof record, data, size);
    append(self, size);
    return ROOM;
}

/* Sends a number and a descriptor; 0, or -1 with errno. */
static int
send_descriptor(int sock, uint64_t number, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control = {0};
    struct iovec part = {&number, sizeof number};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

Room
queue_put_descriptor(Queue *self, int fd, uint32_t limit)
{
    Memory *memory = self->memory.base;
    if (lock(&memory->putting, &memory->put_sleepers) < 0)
        return FAILED;
    Room room = room_for(memory, sizeof(uint64_t), limit);
    const uint64_t number = atomic_load_explicit(&memory->last, memory_order_relaxed) + 1;
    if (room == ROOM) {
        atomic_store(&memory->last, number); /* also where this process does not come any further */
        if (send_descriptor(self->writer, number, fd) < 0) {
            /* Too many descriptors of this user's may be on their way; they arrive as others get something. */
            room = errno == EAGAIN || errno == EWOULDBLOCK || errno == ETOOMANYREFS ? NO_ROOM : FAILED;
            if (room == FAILED)
                PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    if (room != ROOM) {
        unlock(&memory->putting, &memory->put_sleepers);
        return room;
    }
    const uint32_t place = place_of(atomic_load_explicit(&memory->tail, memory_order_relaxed));
    const Record record = {.size = LARGE};
    copy_in(memory, place, 0, &record, sizeof record);
    copy_in(memory, place, sizeof record, &number, sizeof number);
    append(self, sizeof number);
    return ROOM;
}

/* Receives the descriptor of that number; -1 with errno, 0 where there is none. */
static int
receive_descriptor(int sock, uint64_t number)
{
    uint64_t found;
    while (recv(sock, &found, sizeof found, MSG_PEEK | MSG_DONTWAIT) == sizeof found && found <= number) {
        union {
            char room[CMSG_SPACE(sizeof(int))];
            struct cmsghdr alignment;
        } control = {0};
        struct iovec part = {&found, sizeof found};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        if (recvmsg(sock, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
            return 0;
        const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        int fd = -1;
        if (header != NULL && header->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(header), sizeof fd);
        if (found == number) {
            errno = EMFILE; /* what the kernel does not tell: it has dropped the descriptor */
            return fd;
        }
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

/* Copies the first record out and takes it from the queue; needs `getting`, and leaves it. */
static Taken
take(Queue *self, uint64_t head, PyObject **data, int *fd)
{
    Memory *memory = self->memory.base;
    Record record;
    Taken taken = TAKEN;
    copy_out(memory, place_of(head), 0, &record, sizeof record);
    if (record.size == LARGE) {
        uint64_t number;
        copy_out(memory, place_of(head), sizeof record, &number, sizeof number);
        *fd = receive_descriptor(self->reader, number);
        if (*fd < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        taken = *fd < 0 ? RAISING : *fd == 0 ? NOTHING_THERE : TAKEN;
        advance(self, head, sizeof number);
    }
    else {
        *data = PyBytes_FromStringAndSize(NULL, record.size);
        if (*data == NULL)
            taken = RAISING;
        else {
            copy_out(memory, place_of(head), sizeof record, PyBytes_AS_STRING(*data), record.size);
            advance(self, head, record.size);
        }
    }
    unlock(&memory->getting, &memory->get_sleepers);
    if (atomic_load(&memory->putters.count))
        wake(half_of(&memory->head), 1);
    return taken;
}

/* Sleeps while the tail is where the head is. */
static Awakening
sleep_for_records(Queue *self, uint32_t place, int64_t until)
{
    Memory *memory = self->memory.base;
    return look_and_sleep_on(half_of(&memory->tail), place, &memory->getters, &self->patience, until);
}

Taken
queue_get(Queue *self, int64_t until, PyObject **data, int *fd)
{
    for (;;) {
        Memory *memory = self->memory.base;
        if (lock(&memory->getting, &memory->get_sleepers) < 0)
            return RAISING;
        const uint64_t head = atomic_load_explicit(&memory->head, memory_order_relaxed);
        if (atomic_load(&memory->tail) != head) {
            const Taken taken = take(self, head, data, fd);
            if (taken != NOTHING_THERE)
                return taken;
            continue;
        }
        unlock(&memory->getting, &memory->get_sleepers);
        if (until != FOREVER && monotonic_ns() >= until)
            return NOTHING_THERE;
        if (sleep_for_records(self, place_of(head), until) == INTERRUPTED)
            return RAISING;
    }
}

/* Whether there is something to get, at last after the deadline; -1 with an exception. */
int
queue_poll(Queue *self, int64_t until)
{
    Memory *memory = self->memory.base;
    for (;;) {
        const uint64_t head = atomic_load(&memory->head);
        if (atomic_load(&memory->tail) != head)
            return 1;
        if (until != FOREVER && monotonic_ns() >= until)
            return 0;
        if (sleep_for_records(self, place_of(head), until) == INTERRUPTED)
            return -1;
    }
}

uint32_t
queue_taken(Queue *self)
{
    Memory *memory = self->memory.base;
    return place_of(atomic_load(&memory->head));
}

/* Sleeps until something is taken after `taken` was that, or for as long as one sleeps without a look. */
Awakening
queue_wait_taken(Queue *self, uint32_t taken, int64_t until)
{
    Memory *memory = self->memory.base;
    return look_and_sleep_on(half_of(&memory->head), taken, &memory->putters, &self->patience, until);
}

uint32_t
queue_size(Queue *self)
{
    Memory *memory = self->memory.base;
    const uint32_t taken = count_of(atomic_load(&memory->head)); /* first, or there might be fewer than none */
    return count_of(atomic_load(&memory->tail)) - taken + atomic_load(&memory->buffered);
}

void
queue_buffer(Queue *self, int change)
{
    Memory *memory = self->memory.base;
    atomic_fetch_add(&memory->buffered, (uint32_t)change);
}

/* Lets the bell ring from now on, while there is something. */
void
queue_watch(Queue *self)
{
    Memory *memory = self->memory.base;
    if (!atomic_exchange(&memory->watched, 1) && atomic_load(&memory->tail) != atomic_load(&memory->head))
        ring_bell(self);
}

int
queue_make(Queue *self, bool travels)
{
    if (shared_make(&self->memory, sizeof(Memory), travels) < 0)
        return -1;
    Memory *memory = self->memory.base;
    memory->magic = MAGIC;
    return 0;
}

int
queue_open(Queue *self, int fd)
{
    return shared_open(&self->memory, fd, sizeof(Memory), MAGIC);
}

uint32_t
queue_largest(void)
{
    return UNITS / 2 * UNIT;
}
