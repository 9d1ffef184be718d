/* What the parts of the core share: the module's state, and the calls that cross from one file to another. */

#ifndef KLYNG_MP_CORE_H
#define KLYNG_MP_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>

#define ANY (-1) /* as a source or a tag; mailbox.py's ANY_SOURCE and ANY_TAG */
#define OBJECTS 1        /* frames.py's: the context of messages that are for no receive */
#define SLICE_MS 1000    /* of a sleep: a signal that strikes just before it begins would be noticed only after it */
#define SYNCHRONOUS 0x80 /* mailbox.py's: a bit of a message's code, while it has not been matched */

/* Tells the processor that this is a loop which waits for another one. */
static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* -- The module ------------------------------------------------------------------------------------------- */

typedef struct SemLock SemLock; /* semlock.c */

typedef struct {
    PyTypeObject *gate_type;
    PyTypeObject *message_type;
    PyTypeObject *receive_type;
    PyTypeObject *mailbox_type;
    PyTypeObject *parcel_type;
    PyTypeObject *slab_type;
    PyTypeObject *port_type;
    PyTypeObject *express_type;
    PyTypeObject *local_type;
    PyTypeObject *fence_type;
    PyTypeObject *keeper_type;
    PyTypeObject *meeting_type;
    PyTypeObject *queue_type;
    PyTypeObject *mapping_type;
    PyTypeObject *semlock_type;
    PyTypeObject *waiters_type;
    PyTypeObject *flag_type;
    SemLock *locks; /* all of this process, chained */
    PyTypeObject *tally_type;
    PyTypeObject *ledger_type;
    PyTypeObject *bench_type;
    PyTypeObject *unbuffered_type;
    PyObject *not_yet; /* what receiving by the short way returns where what is wanted has not come */
    PyObject *nothing; /* what the short way returns where the long one has to be taken */
    PyObject *dumps; /* pickle's, looked up once */
    PyObject *loads;
    PyObject *dumps_names; /* ("buffer_callback",) */
    PyObject *loads_names; /* ("buffers",) */
    PyObject *protocol;    /* 5 */
    PyObject *no_buffers;  /* () */
} CoreState;

static inline CoreState *
state_of_type(PyTypeObject *type)
{
    return PyType_GetModuleState(type);
}

int gate_setup(PyObject *module, CoreState *state);
int message_setup(PyObject *module, CoreState *state);
int mailbox_setup(PyObject *module, CoreState *state);
int parcel_setup(PyObject *module, CoreState *state);
int slab_setup(PyObject *module, CoreState *state);
int port_setup(PyObject *module, CoreState *state);
int head_setup(PyObject *module, CoreState *state);
int express_setup(PyObject *module, CoreState *state);
int local_setup(PyObject *module, CoreState *state);
int fence_setup(PyObject *module, CoreState *state);
int meeting_setup(PyObject *module, CoreState *state);
int queue_setup(PyObject *module, CoreState *state);
int mapping_setup(PyObject *module, CoreState *state);
int semlock_setup(PyObject *module, CoreState *state);
int waiters_setup(PyObject *module, CoreState *state);
int ledger_setup(PyObject *module, CoreState *state);
int bench_setup(PyObject *module, CoreState *state);
int unbuffered_setup(PyObject *module, CoreState *state);

/* Makes a type and adds it to the module under the last part of its name; returns a reference, or NULL. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

/* -- Gate: the lock of an endpoint, and whether the short way through it is open (gate.c) ------------------- */

typedef struct {
    PyObject_HEAD
    PyThread_type_lock lock;
    unsigned long owner; /* a thread's number while count > 0 */
    unsigned long count;
    uint64_t lowest; /* contexts below it belong to runs that are over */
    long waiting;    /* threads in the waiting room */
    char stopped;    /* the endpoint refuses everything */
} Gate;

/* Whether this thread, which holds the interpreter lock, may use the endpoint now without taking the gate's lock:
   nobody else is inside, nobody else waits (whom a message might have to wake), and the context is of a run that
   goes on. It stays true for as long as the interpreter lock is not released. */
static inline bool
gate_is_open(Gate *gate, uint64_t context)
{
    return (gate->count == 0 || gate->owner == PyThread_get_thread_ident()) && gate->waiting == 0 &&
           !gate->stopped && context >= gate->lowest;
}

/* Takes it if that needs no wait, to hold it while the interpreter lock may be released; `gate_leave` gives it back. */
bool gate_enter_now(Gate *gate);
void gate_leave(Gate *gate);

/* -- Messages (message.c) ---------------------------------------------------------------------------------- */

/* What a message is matched by. A text tag is compared by its text; `number` is then 0. */
typedef struct {
    int64_t source; /* ANY in a receive */
    int64_t number; /* ANY in a receive */
    PyObject *text; /* NULL where the tag is a number; borrowed */
} Envelope;

typedef struct Bucket Bucket;
typedef struct Link Link;

/* A member of a doubly linked list; the list's head is one, too. */
struct Link {
    Link *next, *previous;
};

typedef struct Message {
    PyObject_HEAD
    uint64_t context;
    uint32_t source;
    uint32_t incarnation;
    uint8_t code;
    int64_t number;    /* the tag, or 0 where it is a text */
    PyObject *text;    /* the tag, or NULL where it is a number */
    PyObject *head;    /* bytes */
    PyObject *buffers; /* a sequence */
    uint64_t arrival;
    Link chain;     /* among those of its sender and tag, while a mailbox holds it */
    Link line;      /* among all of its context */
    Bucket *bucket; /* where it is chained, or NULL */
    struct Message *unanswered; /* the next Message that the mailbox's owner has to do something about, or NULL */
} Message;

/* Returns a new message; steals `head` and `buffers` even when it fails; `text` is borrowed. */
Message *message_new(CoreState *state, uint64_t context, uint32_t source, const Envelope *tag, uint32_t incarnation,
                     uint8_t code, PyObject *head, PyObject *buffers);

/* Reads a tag (an int or a str) into number and text (borrowed); 0, or -1 with an exception. */
int read_tag(PyObject *tag, int64_t *number, PyObject **text);

/* Returns a new reference to the tag as the user knows it. */
PyObject *tag_object(int64_t number, PyObject *text);

/* Returns the endpoints' numbers of a communicator's ranks, and how many, to be freed; NULL with an exception. One that
   no endpoint can have is UINT32_MAX (express.c). */
uint32_t *read_members(PyObject *members, uint32_t *size);

/* -- Heads (head.c) ---------------------------------------------------------------------------------------- */

/* wire/codec.py has these; a test compares. The objects of the APART kinds are the message's one buffer. */
enum { NONE, BOOL, INT, FLOAT, STR, BYTES, BYTES_APART, BYTEARRAY, BYTEARRAY_APART, PICKLE, PLAIN = 12, ARRAY };

#define APART_SIZE 4096 /* codec.APART_BYTES: larger buffers travel beside the head */

/* What an object became. `owner` keeps `data` alive; a short one is in `room`. */
typedef struct {
    uint8_t code;
    const char *data;
    size_t size;
    PyObject *owner;
    char room[24];
} Encoded;

typedef enum { ENCODED, LONG_WAY, RAISED } Encoding;

/* Makes a head of an object, unless the codec has more to do with it. */
bool head_is_small(PyObject *object, Py_ssize_t size); /* everyday, and pickled in so many bytes */
Encoding head_encode(CoreState *state, bool main_by_reference, PyObject *object, Encoded *result);
/* Whether an object can be made of such a head. */
bool head_is_everyday(uint8_t code, size_t size);
/* Makes it; `head` is the data as bytes, or NULL; `blame(error, code, head)` returns the error for what cannot be. */
PyObject *head_decode(CoreState *state, PyObject *blame, uint8_t code, const char *data, size_t size, PyObject *head,
                      PyObject *buffers);

/* -- The mailbox (mailbox.c, mailbox_type.c) --------------------------------------------------------------- */

typedef struct Box Box;

typedef struct {
    PyObject_HEAD
    Box **boxes; /* by context, chained */
    size_t box_slots, box_count;
    uint64_t order; /* of arrivals and postings, counted together */
    uint64_t lowest;
    uint64_t dropped;
    Message *first_unanswered, *last_unanswered; /* for `take_unanswered`; NULL where there is none */
    Py_ssize_t unanswered;
} Mailbox;

/* As the methods of the same names; NULL without an exception says that there is none. */
Message *mailbox_take(Mailbox *self, uint64_t context, const Envelope *wanted);
int mailbox_deliver(Mailbox *self, Message *message); /* takes a reference of its own */

int mailbox_restore(Mailbox *self, Message *message); /* what was taken and not used; -1 with an exception */

/* Whether a message that comes now for this envelope is for whoever asks first: no receive is posted in the context. */
bool mailbox_is_unposted(Mailbox *self, uint64_t context);
/* Counts a message that went past the mailbox, to its receiver; 0, or -1 with an exception. */
int mailbox_count_taken(Mailbox *self, uint64_t context);
/* Notes that a message was matched, if its sender wants to know; from then on it is a message like any other. */
void mailbox_note_matched(Mailbox *self, Message *message);

#endif
