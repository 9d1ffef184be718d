/* The shared memory's layout, and what a rank knows of it; port.c tells the story. */

#ifndef KLYNG_MP_PORT_H
#define KLYNG_MP_PORT_H

#include "core.h"

#include <stdatomic.h>

#define PAGE_SIZE 4096
#define MAX_RANKS 1024
#define MIN_RING 4096
#define NOBODY UINT32_MAX

/* -- What is shared --------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic uint32_t sleeping;
    _Atomic uint32_t occupant;    /* its incarnation */
    _Atomic uint32_t takes_slabs; /* it has the address space for other ranks' pools */
    char line[116]; /* processors fetch lines of 64 bytes in pairs */
    _Atomic uint64_t made[MAX_RANKS / 64];
} RankPage;

typedef struct {
    _Atomic uint64_t tail;
    _Atomic uint64_t closed; /* by whom and to whom: the source's and the destination's incarnation, or 0 */
    char source_line[112];
    _Atomic uint64_t head;
    _Atomic uint32_t source_waits;
    char dest_line[116];
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
    _Atomic uint32_t refs;
    uint32_t unused;
    uint64_t offset, capacity; /* in the pool's data */
    char line[40];
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

_Static_assert(sizeof(Record) == 40, "records start at multiples of 8");

/* -- Parcels: large messages on their way out (parcel.c) ---------------------------------------------------- */

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
    struct Port *port;
    Py_ssize_t slab_count;
    int *slabs; /* the number of each buffer's slab, or -1 */
    uint64_t slab_bytes;
} Parcel;

Parcel *parcel_new(struct Port *port, uint32_t peer, Message *message);
void parcel_copy(Parcel *self, char *place, size_t size);

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
} Assembly;

int assembly_begin(Assembly *self, struct Port *port, const Record *record, uint32_t source); /* -1 without an exception: impossible */
int assembly_feed(Assembly *self, const char *data, size_t size);             /* likewise */
bool assembly_is_whole(const Assembly *self);
Message *assembly_finish(CoreState *state, Assembly *self);
void assembly_drop(Assembly *self);

/* -- The port --------------------------------------------------------------------------------------------- */

typedef struct {
    RingHeader *header;
    char *data;
    uint64_t position; /* the tail of a ring out, the head of a ring in */
    uint64_t limit;    /* of a ring out: up to where there is room, as last seen */
    int bell;          /* of a ring out: the destination's eventfd, or -1 */
    bool made;         /* of a ring out: it has been used by this process */
    bool open;         /* of a ring out: whoever wants may send */
    bool waits;        /* of a ring out: the destination was asked to ring when there is room */
    uint32_t incarnation; /* of a ring out: of the destination's occupant */
    uint64_t sent;        /* of a ring out: messages by the short way, since the count was last taken */
    Assembly assembly;    /* of a ring in */
    bool ended;           /* the other side closed it */
    uint64_t closed;      /* the word that said so: it stays there until a successor uses the ring */
    bool told;            /* and that, or that it is broken, has been told */
    const char *broken;   /* why nothing more is read from it, or NULL */
} Ring;

/* What the owner of a pool knows of a slab, whatever others write into the table. */
typedef struct {
    uint64_t offset, capacity;
    uint32_t holder; /* to whom it was sent last */
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
    bool spin;    /* a core is free for it */
    bool has_pools; /* the segment has them, and this process the address space */
    bool reading; /* guards against being called again by what it calls */
    uint32_t vain_spins, skipped_spins;
    uint32_t endings; /* rings that ended or broke and have not been told */
    Ring *out, *in;   /* by peer */
    uint32_t *sources; /* peers that have a ring to here */
    uint32_t source_count, turn;
    uint64_t known[MAX_RANKS / 64];
    PyObject *call; /* rings the bell of a peer whose bell is not known */
    char **pools; /* by rank, mapped when first used; they stay while slabs live */
    uint64_t slab_end; /* of the own pool's data: what is behind it was never used */
    uint32_t slab_count;
    OwnSlab slabs[SLABS];
    bool slabs_known;
    struct Slab *living; /* slabs that were received and are not collected */
    uint64_t living_bytes;
    uint64_t messages_sent, messages_received, bytes_sent, bytes_received, dropped;
} Port;

typedef enum { SENT, NO_ROOM, TOO_LARGE, FAILED } Outcome;

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

size_t rings_size(size_t size, size_t ring_size); /* of the segment without pools; whole pages */

static inline off_t
pool_offset(const Port *self, uint32_t rank)
{
    return (off_t)(self->base_size + (size_t)rank * POOL_SIZE);
}

/* Copies a buffer into a slab of the own pool, for a peer; returns its number, or -1 where none is to be had. */
int slab_fill(Port *self, uint32_t peer, const Py_buffer *view);
void slab_take_back(Port *self, int index); /* its message was never sent */
void slab_take_back_from(Port *self, uint32_t peer); /* its process has ended */
/* Returns the object that is a peer's slab; NULL without an exception where it cannot be. */
PyObject *slab_receive(Port *self, uint32_t source, uint64_t index, uint64_t size);
int slab_privatize(Port *self); /* in a forked child; -1 with errno */

void port_make_ring(Port *self, uint32_t peer); /* gets a ring to a peer ready, unless it is */
int port_ring_bell(Port *self, uint32_t peer);  /* wakes a peer if it sleeps; -1 with an exception */
Outcome port_send_small(Port *self, uint32_t peer, const Small *small);
Outcome port_push(Port *self, uint32_t peer, Parcel *parcel);

/* Reads the rings of one peer (or ANY) until they are empty or a reader has set `enough`; returns how many messages
   were read, or -1 with an exception. */
Py_ssize_t port_read(Port *self, int64_t peer, const Reader *reader, void *context, const bool *enough);

bool ring_has_room(Port *self, Ring *ring); /* whether there is more than when it was last looked at */
bool port_has_news(Port *self, Ring *ring); /* whether reading would find something; NULL for any ring */
bool port_has_source(Port *self, uint32_t peer);  /* whether there ever was anything from it */
bool port_may_spin(Port *self);
bool port_spin(Port *self, bool (*ready)(Port *self, Ring *ring), Ring *ring);

#endif
