/* A segment as its receiver has it (klyng_mp/segments.py): memory that somebody else has filled, and a flag to give it back.

   The first page of a segment has the flag in its first byte, and is shared with the sender. The rest is mapped privately:
   what is written there is nobody else's. The flag is cleared when the last view of the memory is gone, and the sender
   fills it again. But a fork's child has what its parent has received, and neither knows when the other one is done with
   it; so what there was at a fork is never given back: the sender forgets it some time. No descriptor is kept. */

#include "core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    _Atomic char *flag; /* a page */
    char *data;
    size_t size;
    unsigned long forks; /* when it was received */
} Mapping;

static atomic_ulong forks;

static void
count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void
watch_forks(void)
{
    pthread_atfork(count_fork, NULL, NULL);
}

static PyObject *
mapping_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    struct stat status;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i:Mapping", names, &fd))
        return NULL;
    Mapping *self = (Mapping *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    self->forks = atomic_load(&forks);
    if (fstat(fd, &status) < 0)
        goto failed;
    if ((size_t)status.st_size <= page) {
        PyErr_Format(PyExc_ValueError, "descriptor %d is not of a segment", fd);
        goto exit;
    }
    void *flag = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (flag == MAP_FAILED)
        goto failed;
    self->flag = flag;
    self->size = (size_t)status.st_size - page;
    void *data = mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)page);
    if (data != MAP_FAILED) {
        self->data = data;
        return (PyObject *)self;
    }
failed:
    PyErr_SetFromErrno(PyExc_OSError);
exit:
    Py_DECREF(self);
    return NULL;
}

static void
mapping_dealloc(Mapping *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->data != NULL)
        munmap(self->data, self->size);
    if (self->flag != NULL) {
        if (self->forks == atomic_load(&forks))
            atomic_store_explicit(self->flag, 0, memory_order_release);
        munmap((void *)self->flag, (size_t)sysconf(_SC_PAGESIZE));
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static int
mapping_get_buffer(Mapping *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->data, (Py_ssize_t)self->size, 0, flags);
}

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, "The memory of a segment that was received; its descriptor may be closed."},
    {Py_tp_new, mapping_new},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_bf_getbuffer, mapping_get_buffer},
    {0, NULL},
};

static PyType_Spec mapping_spec = {
    .name = "klyng_mp._core.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapping_slots,
};

int
mapping_setup(PyObject *module, CoreState *state)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    state->mapping_type = add_type(module, &mapping_spec);
    return state->mapping_type != NULL ? 0 : -1;
}
