/* A port: one rank's rings in the memory that all ranks of a World on this host share.

   The segment is one sparse memfd, made before the ranks and mapped by each. Nothing in it is touched before it is
   used, and what was never touched costs nothing. For n ranks and rings of r bytes (a power of two):

       rank pages    n     x 4 KiB     whether the rank sleeps; from whom it has rings
       ring headers  n x n x 256 B     by destination, then source
       ring data     n x n x r         in the same order

   A ring carries records from one source to one destination. Positions count bytes and only grow; a record lies at
   its position modulo r, whole: where it would cross the end, a PAD fills the rest. Records start at multiples of 64.

       SMALL   a message without buffers, with a number for its tag, that fits into a quarter of the ring
       BEGIN   the envelope of any other message; what belongs to it follows in
       PIECE   s: the tag's text, the buffers' lengths, the head and the buffers, one after the other, cut anywhere

   So a large message moves through a small ring while both sides copy, one a few pieces behind the other.

   Who writes which word, and in what order (x86 and ARM alike; stdatomic's names):

       word            written by     when                         order     read by       order
       tail            source         records up to it are whole   release   destination   acquire
       head            destination    records up to it are read    release   source        acquire
       closed          source         this occupant sends no more  release   destination   acquire, after tail
                                      to that one
       occupant        its rank       it is there                  seq_cst   any peer      seq_cst
       source_waits    source sets 1, then looks at head again     seq_cst   destination   seq_cst, after head
                       destination clears it when it made room
       sleeping        its rank sets 1, then looks at every ring   seq_cst   any peer      seq_cst, after tail
                       again; who sets it back to 0 rings the bell
       ringer          who rings, before the bell                 relaxed   its rank      relaxed: a hint
       quiet           its rank sets it before sleeping, sources   seq_cst   any peer      seq_cst
                       count it down; at 0 the next one rings
       met             its rank, when it makes a collective call   release   any peer      acquire, after a fence
       made            a bit by each source, before its first tail release   destination   acquire
       lands           destination    pieces are wanted, no slabs  relaxed   source        relaxed: a hint
       cpu             its rank       where it runs, from 1        relaxed   any peer      relaxed: a hint

   The two waits are Dekker's: each side stores its word, fences, and loads the other's, so that they cannot both
   miss each other (Dijkstra, EWD 123). The bell is an eventfd, written at most once for each sleep. Who waits for a
   step of a collective from each of several ranks is woken by the last of them: whatever else comes rings as ever, and
   a count that is too low, since a source was late to count down for an earlier sleep, rings too early, never too late.

   Nobody is trusted to be alive: a source that dies leaves a tail at the end of a whole record; one that dies within
   a long message leaves pieces without an end, which the next BEGIN or SMALL of that ring puts an end to. A successor
   of either side goes on at the positions it finds. Nor to be sane: every length and position is checked against the
   ring before it is used, from a copy, and a ring that does not add up is broken for good.

   The core sleeps in one place, `doze`, on the poller of the endpoint's waiting room and only where no other thread is;
   whatever shows there but the bell is left to the room.

   The port belongs to one endpoint and is used with its lock held, or past its gate (express.c). */

#include "port.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINE 64               /* records start at multiples of it, and what a PIECE carries, too: copies are faster */
#define PIECE_FRONT LINE
#define PIECE_SIZE 65536      /* a few of them stay in the second-level caches */
#define BATCH 1024            /* messages read in one go; then others get their turn */
#define MOST_BYTES (8u << 20) /* read, or written, in one go: it takes about a millisecond, with the interpreter lock held */

/* -- Looking around --------------------------------------------------------------------------------------- */

static inline size_t
padded(size_t size)
{
    return (size + LINE - 1) & ~(size_t)(LINE - 1);
}

/* Returns how many bytes of a record come before what it carries. */
static inline size_t
front_of(const Record *record)
{
    return record->kind == PIECE ? PIECE_FRONT : sizeof *record;
}

/* Takes note of sources that have used their ring to this rank for the first time. */
static void
find_sources(Port *self)
{
    RankPage *page = page_of(self, self->rank);
    for (uint32_t word = 0; word * 64 < self->size; word++) {
        uint64_t new = atomic_load_explicit(&page->made[word], memory_order_acquire) & ~self->known[word];
        self->known[word] |= new;
        for (; new != 0; new &= new - 1) {
            uint32_t source = word * 64 + (uint32_t)__builtin_ctzll(new);
            if (source >= self->size || source == self->rank)
                continue;
            self->in[source].position = atomic_load_explicit(&self->in[source].header->head, memory_order_relaxed);
            self->sources[self->source_count++] = source;
        }
    }
}

bool
port_has_source(Port *self, uint32_t peer)
{
    if (!(self->known[peer / 64] >> peer % 64 & 1))
        find_sources(self);
    return self->known[peer / 64] >> peer % 64 & 1;
}

/* Tells that the source has closed the ring; the same word again is what a dead one left to its successor. */
static inline bool
is_closed_anew(const Port *self, const Ring *ring, uint64_t closed)
{
    return (uint32_t)closed == self->incarnation && closed != ring->closed;
}

/* Whether reading this ring would find a record, or that there will be no more. */
bool
ring_has_news(Port *self, Ring *ring)
{
    if (ring->broken)
        return false;
    RingHeader *header = ring->header;
    if (atomic_load_explicit(&header->tail, memory_order_acquire) != ring->position)
        return true;
    return is_closed_anew(self, ring, atomic_load_explicit(&header->closed, memory_order_acquire));
}

/* Whether any ring has news; `ring` may be one to look at alone. */
bool
port_has_news(Port *self, Ring *ring)
{
    if (ring != NULL)
        return ring_has_news(self, ring);
    find_sources(self);
    for (uint32_t index = 0; index < self->source_count; index++)
        if (ring_has_news(self, &self->in[self->sources[index]]))
            return true;
    return false;
}

void
port_ring_bell(Port *self, uint32_t peer)
{
    RankPage *page = page_of(self, peer);
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&page->sleeping, memory_order_relaxed) || !atomic_exchange(&page->sleeping, 0))
        return;
    atomic_store_explicit(&page->ringer, self->rank, memory_order_relaxed);
    int fd = self->out[peer].bell;
    if (fd < 0) {
        self->out[peer].due = self->due = true;
        return;
    }
    const uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ; /* a bell that is full has been rung */
}

void
port_expect(Port *self, uint32_t messages)
{
    atomic_store(&page_of(self, self->rank)->quiet, messages > 1 ? (int32_t)messages - 1 : 0);
}

/* As port_ring_bell, for a step of a collective. */
static void
ring_for_step(Port *self, uint32_t peer)
{
    RankPage *page = page_of(self, peer);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&page->sleeping, memory_order_relaxed) &&
        (atomic_load(&page->quiet) <= 0 || atomic_fetch_sub(&page->quiet, 1) <= 0))
        port_ring_bell(self, peer);
}

int
port_call(Port *self, bool due)
{
    if (!(due || self->due) || self->call == NULL)
        return 0;
    PyObject *done = PyObject_CallNoArgs(self->call);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* -- Sending ---------------------------------------------------------------------------------------------- */

void
port_make_ring(Port *self, uint32_t peer)
{
    Ring *ring = &self->out[peer];
    if (ring->made)
        return;
    ring->made = true;
    ring->position = atomic_load_explicit(&ring->header->tail, memory_order_relaxed);
    ring->limit = atomic_load_explicit(&ring->header->head, memory_order_acquire) + self->ring_size;
    atomic_store_explicit(&ring->header->closed, 0, memory_order_relaxed);
    atomic_store_explicit(&ring->header->source_waits, 0, memory_order_relaxed);
    atomic_fetch_or(&page_of(self, peer)->made[self->rank / 64], (uint64_t)1 << self->rank % 64);
}

bool
ring_has_room(Port *self, Ring *ring)
{
    uint64_t limit = atomic_load_explicit(&ring->header->head, memory_order_acquire) + self->ring_size;
    bool more = limit != ring->limit;
    ring->limit = limit;
    return more;
}

static bool
fits(const Port *self, const Ring *ring, size_t needed)
{
    uint64_t room = ring->limit - ring->position;
    return needed <= room && room <= self->ring_size; /* more than all of it is nonsense */
}

/* Returns where a record of this size may be written, or NULL if there is no room yet. */
static char *
claim(Port *self, Ring *ring, size_t size)
{
    size_t offset = ring->position & (self->ring_size - 1), rest = self->ring_size - offset;
    size_t needed = padded(size) + (padded(size) > rest ? rest : 0);
    if (!fits(self, ring, needed) && !(ring_has_room(self, ring) && fits(self, ring, needed)))
        return NULL;
    if (padded(size) > rest) {
        const uint32_t pad[2] = {(uint32_t)rest, PAD};
        memcpy(ring->data + offset, pad, sizeof pad);
        ring->position += rest;
        offset = 0;
    }
    return ring->data + offset;
}

static void
publish(Port *self, Ring *ring, size_t size)
{
    ring->position += padded(size);
    port_note_cpu(self);
    atomic_store_explicit(&ring->header->tail, ring->position, memory_order_release);
}

static inline void
count_sent(Port *self, Ring *ring, unsigned messages, uint64_t bytes)
{
    self->messages_sent += messages;
    self->bytes_sent += bytes;
    ring->messages += messages;
    ring->bytes += bytes;
}

Outcome
port_send_small(Port *self, uint32_t peer, const Small *small)
{
    Ring *ring = &self->out[peer];
    size_t size = sizeof(Record) + small->head_size;
    if (size > self->ring_size / 4)
        return TOO_LARGE;
    port_make_ring(self, peer);
    char *place = claim(self, ring, size);
    if (place == NULL)
        return NO_ROOM;
    const Record record = {
        .size = (uint32_t)size,
        .kind = SMALL,
        .code = small->code,
        .incarnation = small->incarnation,
        .context = small->context,
        .tag = small->number,
        .head_size = small->head_size,
    };
    memcpy(place, &record, sizeof record);
    memcpy(place + sizeof record, small->head, small->head_size);
    publish(self, ring, size);
    count_sent(self, ring, 1, size);
    if (small->context & 1)
        ring_for_step(self, peer);
    else
        port_ring_bell(self, peer);
    return SENT;
}

/* Asks the destination to ring when it has made room; tells whether it has made some in the meantime. */
static bool
wait_for_room(Port *self, Ring *ring)
{
    atomic_store(&ring->header->source_waits, 1);
    atomic_thread_fence(memory_order_seq_cst);
    ring->waits = !ring_has_room(self, ring);
    if (!ring->waits)
        atomic_store(&ring->header->source_waits, 0);
    return !ring->waits;
}

/* Writes as many pieces of a parcel as there is room for, and as may be written in one go. */
Outcome
port_push(Port *self, uint32_t peer, Parcel *parcel)
{
    Ring *ring = &self->out[peer];
    port_make_ring(self, peer);
    size_t largest = self->ring_size / 4 < PIECE_SIZE ? self->ring_size / 4 : PIECE_SIZE;
    ring->waits = false;
    uint64_t stay_end = 0;
    uint64_t end = parcel->left > MOST_BYTES ? parcel->left - MOST_BYTES : 0;
    while (!parcel_is_done(parcel)) {
        if (parcel->left < end) {
            ring->waits = true; /* for its turn: whoever looks sees that there is room */
            return NO_ROOM;
        }
        if (parcel->started && parcel_ready(parcel) == 0)
            parcel_fill(parcel);
        size_t body = parcel->started ? parcel_ready(parcel) : 0;
        size_t front = parcel->started ? PIECE_FRONT : sizeof(Record);
        size_t size = front + body > largest ? largest : front + body;
        char *place = claim(self, ring, size);
        if (place == NULL) {
            if (port_stay(self, ring_has_room, ring, &stay_end) || wait_for_room(self, ring))
                continue;
            return NO_ROOM;
        }
        Record record = parcel->record;
        record.size = (uint32_t)size;
        record.kind = parcel->started ? PIECE : BEGIN;
        memcpy(place, &record, sizeof record);
        if (parcel->started)
            parcel_copy(parcel, place + front, size - front);
        parcel->started = true;
        publish(self, ring, size);
        count_sent(self, ring, 0, size);
        port_ring_bell(self, peer);
    }
    count_sent(self, ring, 1, parcel->slab_bytes);
    return SENT;
}

/* -- Receiving -------------------------------------------------------------------------------------------- */

static void
break_ring(Port *self, Ring *ring, const char *reason)
{
    ring->broken = reason;
    self->endings++;
}

/* Ends the reading of a ring with a part of a message lost; 0, or -1 with the exception that there is already. */
int
port_give_up(Port *self, Ring *ring)
{
    assembly_drop(&ring->assembly);
    bool ours = PyErr_Occurred() != NULL;
    break_ring(self, ring, ours ? "sent a message that there was no memory for here, so nothing more of it is read"
                                : "broke the protocol: it sent parts of a message that cannot be");
    return ours ? -1 : 0;
}

/* A message that is not put into the landing, but that the receive is given, closes it for others. */
static void
pass_landing(Port *self, const Record *record, uint32_t source)
{
    if (self->landing.open && landing_is_for(&self->landing, record, source))
        self->landing.open = false;
}

static int
read_small(Port *self, Ring *ring, uint32_t source, const Record *record, const char *payload, size_t size,
           const Reader *reader, void *context)
{
    assembly_drop(&ring->assembly);
    if (record->parts || record->head_size != size || record->tag < 0) {
        break_ring(self, ring, "broke the protocol: it sent a small message that does not add up");
        return 0;
    }
    if (record->incarnation != self->incarnation) {
        self->dropped++;
        return 0;
    }
    pass_landing(self, record, source);
    const Small small = {record->context, source, record->incarnation, record->tag, record->code, payload, size};
    if (reader->small(context, &small) < 0)
        return -1;
    self->messages_received++;
    return 1;
}

/* Returns whether a message was read, or -1 with an exception: the ring is broken then, or the record not used. */
static int
read_record(Port *self, Ring *ring, uint32_t source, const Record *record, const char *payload, size_t size,
            const Reader *reader, void *context)
{
    if (record->kind == SMALL)
        return read_small(self, ring, source, record, payload, size, reader, context);
    if (record->kind == BEGIN) {
        assembly_drop(&ring->assembly);
        if (record->incarnation != self->incarnation) {
            self->dropped++;
            return 0;
        }
        if (assembly_begin(&ring->assembly, self, record, source) < 0 || assembly_feed(&ring->assembly, payload, 0) < 0)
            return port_give_up(self, ring);
    }
    else if (record->kind == PIECE && ring->assembly.active) {
        if (assembly_feed(&ring->assembly, payload, size) < 0)
            return port_give_up(self, ring);
    }
    else if (record->kind > PIECE)
        break_ring(self, ring, "broke the protocol: it wrote into its ring what is no record");
    if (ring->broken || !ring->assembly.active || !assembly_is_whole(&ring->assembly))
        return 0;
    pass_landing(self, &ring->assembly.record, source);
    Message *message = assembly_finish(self->state, &ring->assembly);
    self->messages_received++;
    int result = message != NULL && reader->large(context, message) == 0 ? 1 : port_give_up(self, ring);
    Py_XDECREF(message);
    return result;
}

/* Gives back what was read. */
static void
free_room(Port *self, Ring *ring, uint32_t source)
{
    port_note_cpu(self);
    atomic_store_explicit(&ring->header->head, ring->position, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->header->source_waits, memory_order_relaxed) &&
        atomic_exchange(&ring->header->source_waits, 0))
        port_ring_bell(self, source);
}

/* Copies the next record's header; false where there is none. */
static bool
next_record(Port *self, Ring *ring, Record *record)
{
    uint64_t tail = atomic_load_explicit(&ring->header->tail, memory_order_acquire);
    if (tail == ring->position)
        return false;
    size_t offset = ring->position & (self->ring_size - 1), rest = self->ring_size - offset;
    uint64_t there = tail - ring->position;
    *record = (Record){0};
    memcpy(record, ring->data + offset, rest < sizeof *record ? rest : sizeof *record);
    size_t least = record->kind == PAD ? 8 : front_of(record);
    if (there > self->ring_size || record->size < least || record->size > rest || padded(record->size) > there) {
        break_ring(self, ring, "broke the protocol: it wrote into its ring what is no record");
        return false;
    }
    return true;
}

/* Waits for more of a message that its sender is at work on. */
static bool
await_rest(Port *self, Ring *ring, uint64_t *end)
{
    return ring->assembly.active && !ring->broken && port_stay(self, port_has_news, ring, end);
}

static void
look_for_end(Port *self, Ring *ring)
{
    uint64_t closed = atomic_load_explicit(&ring->header->closed, memory_order_acquire);
    if (is_closed_anew(self, ring, closed) &&
        atomic_load_explicit(&ring->header->tail, memory_order_acquire) == ring->position) {
        ring->closed = closed;
        ring->ended = true;
        ring->told = false;
        self->endings++;
    }
}

static Py_ssize_t
read_ring(Port *self, uint32_t source, const Reader *reader, void *context, const bool *enough)
{
    Ring *ring = &self->in[source];
    Record record;
    Py_ssize_t count = 0;
    uint64_t end = ring->position + MOST_BYTES, stay_end = 0;
    while (!ring->broken && !*enough && !self->released && count < BATCH && ring->position < end &&
           (next_record(self, ring, &record) || (await_rest(self, ring, &stay_end) && next_record(self, ring, &record)))) {
        const char *payload = ring->data + (ring->position & (self->ring_size - 1)) + front_of(&record);
        ring->position += padded(record.size);
        ring->ended = ring->told = false; /* a successor of who closed it goes on */
        self->out[source].lost = false;
        ring->closed = 0;
        int read = 0;
        if (record.kind != PAD) {
            self->bytes_received += record.size;
            read = read_record(self, ring, source, &record, payload, record.size - front_of(&record), reader, context);
        }
        if (read < 0 && !ring->broken)
            ring->position -= padded(record.size); /* it stays there, until there is memory for it */
        free_room(self, ring, source);
        if (read < 0)
            return -1;
        count += read;
    }
    if (!ring->broken && !*enough && !self->released)
        look_for_end(self, ring);
    return count;
}

static Py_ssize_t
read_all(Port *self, const Reader *reader, void *context, const bool *enough)
{
    find_sources(self);
    Py_ssize_t total = 0;
    for (uint32_t index = 0; index < self->source_count && !*enough && !self->released; index++) {
        /* Another one is first each time, so that a busy source does not starve the others. */
        uint32_t source = self->sources[(self->turn + index) % self->source_count];
        Py_ssize_t count = read_ring(self, source, reader, context, enough);
        if (count < 0)
            return -1;
        total += count;
    }
    if (total)
        self->turn++;
    return total;
}

Py_ssize_t
port_read(Port *self, int64_t peer, const Reader *reader, void *context, const bool *enough)
{
    if (self->reading || self->released)
        return 0; /* a finalizer, run while we read, asks again */
    self->reading = true;
    port_enter(self);
    Py_ssize_t total = peer == ANY ? read_all(self, reader, context, enough)
                                   : read_ring(self, (uint32_t)peer, reader, context, enough);
    self->reading = false;
    port_exit(self);
    return total;
}
