/* A SemLock's words, and what is done with them (semlock.c has the essay; semlock_type.c is it as Python sees it). */

#ifndef KLYNG_MP_SEMLOCK_H
#define KLYNG_MP_SEMLOCK_H

#include "shared.h"

enum { RECURSIVE_MUTEX, SEMAPHORE };  /* kind; the standard library's numbers */
enum { IS_LOCK = 1, IS_COUNTED = 2 }; /* flags */

typedef struct {
    _Atomic Identity who;
    _Atomic int32_t count;
    int32_t unused;
} Holding;

typedef struct {
    uint32_t magic, flags;
    int32_t maxvalue, unused;
    _Atomic uint64_t word;
    Sleepers waiters;
    _Atomic uint32_t value, capacity, nobodys;
    _Alignas(64) Holding holdings[];
} Page;

struct SemLock {
    PyObject_HEAD
    Shared shared;
    Page *page;
    int kind;
    bool left;      /* this process has run its exit path */
    bool uncounted; /* there was no room for its holding */
    long count;
    unsigned long thread;
    Identity process; /* that count and thread are of */
    Holding *holding; /* its own, once it is known */
    int64_t next_glance;
    Patience patience;
    PyObject *label;
    SemLock *next, **place; /* among all of this process */
};

static inline bool
is_lock(const SemLock *self)
{
    return self->page->flags & IS_LOCK;
}

/* Makes, or opens, its memory; 0, or -1 with an exception. */
int semlock_make(SemLock *self, int value, int maxvalue, bool travels, bool owned);
int semlock_open(SemLock *self, int fd);

/* Forgets what was the parent's, if this is a child now. */
void semlock_notice_fork(SemLock *self);
bool semlock_is_mine(SemLock *self);
/* acquire: True, False, or NULL with an exception. `timeout` is None, or a number of seconds. */
PyObject *semlock_take(SemLock *self, bool block, PyObject *timeout);
/* release: None, or NULL with an exception. */
PyObject *semlock_give(SemLock *self);
/* Lets what this process holds be held by one that ends, and is not killed; `ended`: it will hold nothing any more. */
void semlock_leave(SemLock *self, bool ended);

#endif
