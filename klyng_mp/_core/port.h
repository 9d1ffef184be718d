/* The shared memory's layout, and what a rank knows of it; port.c tells the story. */

#ifndef KLYNG_MP_PORT_H
#define KLYNG_MP_PORT_H

#include "core.h"

#include <stdatomic.h>
#include <sys/types.h>

#define PAGE_SIZE 4096
#define MAX_RANKS 1024
#define MIN_RING 4096
#define NOBODY UINT32_MAX
#define MEETINGS 64 /* communicators of a run whose barriers need no messages */

/* -- What is shared --------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic uint32_t sleeping;
    _Atomic uint32_t occupant;    /* its incarnation */
    _Atomic uint32_t takes_slabs; /* it has the address space for other ranks' pools */
    _Atomic uint32_t cpu; /* on which it was seen last */
    _Atomic uint32_t ringer; /* who rang its bell last */
    _Atomic int32_t quiet; /* while it sleeps: steps of collectives that may still come without its bell */
    _Atomic uint32_t ended; /* the latest occupant whose end its supervisor has seen; only the supervisor writes it */
    char line[112]; /* processors fetch lines of 64 bytes in pairs */
    _Atomic uint64_t made[MAX_RANKS / 64];
    _Atomic uint64_t met[MEETINGS]; /* see meeting.c */
    char own_line[128];
    _Atomic uint64_t ahead; /* of a pool's worker: see crew.c */
} RankPage;

typedef struct {
    _Atomic uint64_t tail;
    _Atomic uint64_t closed; /* by whom and to whom: the source's and the destination's incarnation, or 0 */
    char source_line[112];
    _Atomic uint64_t head;
    _Atomic uint32_t source_waits;
    _Atomic uint32_t lands; /* the destination has a place ready for what comes next */
    char dest_line[112];
} RingHeader;

_Static_assert(sizeof(RankPage) <= PAGE_SIZE, "a rank's page is a page");
_Static_assert(sizeof(RingHeader) == 256, "a ring's header is two pairs of lines");

#define SLABS 256
#define SLAB_GRAIN 4096 /* a page: they can be replaced one by one */
#define SLAB_MIN 32768  /* below it a page fault or two cost more than the second copy */
#define POOL_TABLE (SLABS * sizeof(SlabEntry))
#define POOL_SIZE ((size_t)256 << 20) /* what may be under way from one rank, or kept by others */
#define POOL_DATA (POOL_SIZE - POOL_TABLE)

typedef struct {
    _Atomic uint64_t word; /* which use of it this is, and its state */
    _Atomic uint64_t offset, capacity; /* in the pool's data */
    _Atomic uint64_t holder; /* who has it, or is to get it: rank and incarnation, in one word */
    char line[32];
} SlabEntry;

_Static_assert(sizeof(SlabEntry) == 64, "a line each");

enum { PAD, SMALL, BEGIN, PIECE }; /* kinds of records */

typedef struct {
    uint32_t size; /* all of it, this header included */
    uint8_t kind;
    uint8_t code;
    uint8_t text; /* whether the tag is a text; `tag` is its length then */
    uint8_t reserved;
    uint32_t incarnation; /* of the occupant that it is meant for */
    uint32_t parts;       /* buffers */
    uint64_t context;
    int64_t tag;
    uint64_t head_size;
} Record;

_Static_assert(sizeof(Record) == 40, "nothing between its words is sent");

/* -- Parcels: large messages on their way out (parcel.c) ---------------------------------------------------- */

/* One use of one slab; `use` 0 is none. */
typedef struct {
    uint32_t owner, index;
    uint64_t use;
} SlabKey;

/* What became of a buffer that travels in a slab. */
typedef struct {
    SlabKey key;
    PyObject *given; /* the sender's own Slab, which it gives away, or NULL where a copy travels */
} SlabPart;

typedef struct {
    PyObject_HEAD
    Record record; /* what every piece repeats of the envelope */
    PyObject *message;
    Py_buffer *views; /* the text and lengths, the head, then the buffers */
    Py_ssize_t view_count;
    Py_ssize_t view;   /* the one that is being copied */
    size_t offset;     /* within it */
    uint64_t left;     /* bytes */
    bool started;
    bool filled; /* its slabs have their bytes */
    struct Port *port;
    Py_ssize_t slab_count;
    SlabPart *slabs; /* of each buffer */
    uint64_t slab_bytes;
} Parcel;

Parcel *parcel_new(struct Port *port, uint32_t peer, Message *message);
void parcel_copy(Parcel *self, char *place, size_t size);
void parcel_fill(Parcel *self);

/* How much of the body may leave in one piece now: what is behind the front, only when the slabs are filled; and what
   is behind the head, in a piece of its own, since copies between places that are aligned alike are faster. */
static inline uint64_t
parcel_ready(const Parcel *self)
{
    uint64_t rest = (uint64_t)self->views[self->view].len - self->offset;
    if (!self->filled)
        return self->view > 0 ? 0 : rest;
    if (self->view == 0 && self->view_count > 2)
        rest += (uint64_t)self->views[1].len;
    return self->view > 1 || self->view_count < 3 || self->left < APART_SIZE || rest == 0 ? self->left : rest;
}

static inline bool
parcel_is_done(const Parcel *self)
{
    return self->started && self->left == 0;
}

/* -- Assemblies: large messages on their way in (parcel.c) -------------------------------------------------- */

typedef struct {
    bool active;
    Record record;
    uint32_t source;
    struct Port *port; /* borrowed: it is part of it */
    char *front; /* the text, and each buffer's length and slab */
    size_t front_size, front_filled;
    PyObject *head;    /* bytes */
    PyObject *buffers; /* a list of bytearrays, or of bytes where the codec wants them */
    Py_ssize_t part;   /* the one that is being filled; -1 is the head */
    size_t filled;     /* of it */
    bool lands;        /* its only buffer is the port's landing */
} Assembly;

/* These two return -1 with MemoryError, or without an exception where what was sent is impossible. */
int assembly_begin(Assembly *self, struct Port *port, const Record *record, uint32_t source);
int assembly_feed(Assembly *self, const char *data, size_t size);
bool assembly_is_whole(const Assembly *self);
Message *assembly_finish(CoreState *state, Assembly *self);
void assembly_drop(Assembly *self);

/* Where the next large message of one sender may be put at once: a receive that is posted has a buffer for it. */
typedef struct {
    bool open; /* nothing has taken it yet */
    const void *owner;
    uint64_t context;
    uint32_t source;
    int64_t tag; /* or ANY */
    PyObject *object; /* the buffer; what the message has as its own then, or NULL where there is no landing */
    PyObject *head; /* only what has exactly this one, or NULL */
    Py_buffer view;
} Landing;

/* -- The port --------------------------------------------------------------------------------------------- */

typedef struct Ring {
    RingHeader *header;
    char *data;
    uint64_t position; /* the tail of a ring out, the head of a ring in */
    uint64_t limit;    /* of a ring out: up to where there is room, as last seen */
    int bell;          /* of a ring out: the destination's eventfd, or -1 */
    bool made;         /* of a ring out: it has been used by this process */
    bool open;         /* of a ring out: whoever wants may send */
    bool waits;        /* of a ring out: the destination was asked to ring when there is room */
    bool lost;         /* of a ring out: nothing more is received by the destination's occupant */
    uint64_t gone;     /* of a ring out: occupants with incarnations below it receive nothing more from a slab */
    uint32_t addressed; /* of a ring out: the latest incarnation that a parcel was made for */
    bool due;          /* of a ring out: the destination has to be woken, and its bell is not known */
    uint32_t peer;
    uint32_t incarnation; /* of a ring out: of the destination's occupant */
    uint64_t sent;        /* of a ring out: messages by the short way, since the count was last taken */
    uint64_t messages;    /* of a ring out: those that have left whole, in the port's life */
    uint64_t bytes;       /* of a ring out: that have left; what went in slabs, too */
    uint64_t spun_ns;     /* spent looking whether it has what is waited for */
    Assembly assembly;    /* of a ring in */
    bool ended;           /* the other side closed it */
    uint64_t closed;      /* the word that said so: it stays there until a successor uses the ring */
    bool told;            /* and that, or that it is broken, has been told */
    const char *broken;   /* why nothing more is read from it, or NULL */
} Ring;

/* What the owner of a pool knows of a slab, whatever others write into the table. */
typedef struct {
    uint64_t offset, capacity;
    uint64_t use;
    bool used; /* since the pool was last trimmed */
    bool trimmed; /* it has no memory */
    bool fresh; /* nor had it when it was taken */
    bool mapped; /* all of it has been mapped to be written here */
} OwnSlab;

typedef struct Port {
    PyObject_HEAD
    CoreState *state;
    PyObject *weak_references;
    int fd; /* the segment's, or -1 once the port is released */
    char *base; /* the mapping, or NULL once it is released */
    size_t base_size;
    size_t ring_size;
    uint32_t size, rank, incarnation;
    pid_t pid;
    bool spin;    /* a core is free for it */
    bool has_pools; /* the segment has them, and this process the address space */
    bool released;
    uint32_t busy; /* calls that use the mapping; the last one out unmaps it if it was released meanwhile */
    bool reading; /* guards against being called again by a finalizer */
    bool due;     /* some ring's bell is */
    uint32_t ringer; /* who ended the last doze, as far as is known */
    uint32_t vain_spins, skipped_spins, vain_yields, skipped_yields;
    uint32_t cpu;
    uint32_t endings; /* rings that ended or broke and have not been told */
    Ring *out, *in;   /* by peer */
    uint32_t *sources; /* peers that have a ring to here */
    uint32_t source_count, turn;
    uint64_t known[MAX_RANKS / 64];
    PyObject *call; /* does what is due; called where there is no lock to be held */
    char **pools; /* by rank, mapped when first used; they stay while slabs live */
    uint64_t slab_end; /* of the own pool's data: what is behind it is not cut */
    uint32_t slab_count;
    OwnSlab slabs[SLABS];
    bool slabs_known;
    Landing landing;
    struct Meeting *meetings; /* the barriers that threads of this rank wait in; borrowed */
    struct Slab *living; /* slabs that were received and are not collected */
    uint64_t living_bytes;
    uint64_t messages_sent, messages_received, bytes_sent, bytes_received, dropped;
} Port;

typedef enum { SENT, NO_ROOM, TOO_LARGE } Outcome;

/* A message with a number for its tag and no buffers, outside of any ring. */
typedef struct {
    uint64_t context;
    uint32_t source;
    uint32_t incarnation; /* of the occupant that it is meant for */
    int64_t number;
    uint8_t code;
    const char *head;
    size_t head_size;
} Small;

/* Called with what was read, while a small one's head is still in the ring: copy it, and run no Python code.
   Returns 0, or -1 with an exception. */
typedef struct {
    int (*small)(void *context, const Small *small);
    int (*large)(void *context, Message *message); /* borrowed */
} Reader;

static inline RankPage *
page_of(const Port *self, uint32_t rank)
{
    return (RankPage *)(self->base + (size_t)rank * PAGE_SIZE);
}

/* Whether an occupant of a place has ended, so that a message for it would meet nobody. */
static inline bool
has_ended(const Port *self, uint32_t rank, uint32_t incarnation)
{
    return atomic_load_explicit(&page_of(self, rank)->ended, memory_order_acquire) >= incarnation;
}

/* Between these two the mapping stays, whatever runs. */
static inline void
port_enter(Port *self)
{
    self->busy++;
}

void port_exit(Port *self);
void port_release(Port *self); /* no more can be done with it */

extern PyMethodDef port_methods[]; /* port_calls.c */

size_t rings_size(size_t size, size_t ring_size); /* of the segment without pools; whole pages */

static inline off_t
pool_offset(const Port *self, uint32_t rank)
{
    return (off_t)(self->base_size + (size_t)rank * POOL_SIZE);
}

/* Gives a free slab of the own pool to a peer, to be filled; false where none is to be had. */
bool slab_book(Port *self, uint32_t peer, uint32_t incarnation, uint64_t size, SlabKey *key);
void slab_fill(Port *self, const SlabKey *key, const Py_buffer *view);
void slab_take_back(Port *self, const SlabKey *key); /* its message was never sent */
/* Gives a Slab that this process holds to a peer; false where it is not its to give. */
bool slab_give(Port *self, uint32_t peer, uint32_t incarnation, PyObject *slab, SlabKey *key);
void slab_keep(PyObject *slab); /* after all: the message was never sent */
/* Returns the Slab that a peer sent; NULL without an exception where it cannot be. */
PyObject *slab_receive(Port *self, const SlabKey *key, uint64_t size);
PyObject *slab_allocate(Port *self, uint64_t size); /* a Slab of the own pool, or None where none is to be had */
PyObject *slab_find(Port *self, const Py_buffer *view); /* the Slab that is all of this memory, or None */
void slab_trim(Port *self); /* gives back the memory of slabs that were not used since the last call */
int slab_privatize(Port *self); /* in a forked child; -1 with errno */

/* Whether a message with this envelope is the one that the landing is for. */
bool landing_is_for(const Landing *self, const Record *record, uint32_t source);
int landing_clear(Port *self); /* nothing is put there any more; -1 with MemoryError, and the sender's ring broken */
int port_give_up(Port *self, struct Ring *ring);

void port_make_ring(Port *self, uint32_t peer); /* gets a ring to a peer ready, unless it is */
void port_ring_bell(Port *self, uint32_t peer);  /* wakes a peer if it sleeps, or notes that it has to be woken */
void port_expect(Port *self, uint32_t messages); /* in its next sleep this rank waits for so many steps of collectives */
/* Has those woken who have to be, and does whatever else is due; runs Python code; -1 with an exception. */
int port_call(Port *self, bool due);
Outcome port_send_small(Port *self, uint32_t peer, const Small *small);
Outcome port_push(Port *self, uint32_t peer, Parcel *parcel);

/* Reads the rings of one peer (or ANY) until they are empty or a reader has set `enough`; returns how many messages
   were read, or -1 with an exception. */
Py_ssize_t port_read(Port *self, int64_t peer, const Reader *reader, void *context, const bool *enough);

bool port_has_met(const Port *self); /* whether all have come to one of the barriers that this rank waits in */
bool ring_has_room(Port *self, Ring *ring); /* whether there is more than when it was last looked at */
bool port_has_news(Port *self, Ring *ring); /* whether reading would find something; NULL for any ring */
bool port_has_new_room(Port *self, bool last); /* whether a peer has made room that was waited for */
bool port_prepare_sleep(Port *self); /* says that this rank sleeps, unless something is due: then it returns false */
bool port_has_source(Port *self, uint32_t peer);  /* whether there ever was anything from it */
void port_note_cpu(Port *self); /* lets others know on which processor this rank is */
typedef bool Look(Port *self, Ring *ring);
/* Spins until `ready` for as long as a wake-up costs, where a core is free and it was not in vain lately; tells whether
   it came. */
bool port_spin(Port *self, Look *ready, Ring *ring);
typedef bool Ready(Port *self, const void *what); /* called without the interpreter lock */
/* Lets others run a few times where ranks share processors, until `ready`; tells whether it came. */
bool port_yield(Port *self, Ready *ready, const void *what);
/* Likewise, for longer, as the peer is at work on it; `end`, 0 at first, is when to do so no more. */
bool port_stay(Port *self, Look *ready, Ring *ring, uint64_t *end);

#endif
