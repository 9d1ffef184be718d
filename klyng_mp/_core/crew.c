/* A pool and its workers: tasks that are sent ahead and are not bound, and their results.

   The parent of a pool is rank 0 of a segment, each worker another rank. Tasks go out in batches, results come back one
   by one, each in the ring before the next task begins. What a worker may begin is said by one word in its page:

       ahead     [ end: 32 bits | next: 32 bits ]     tasks are counted from the start of the worker

       next      the worker raises it by one when it begins a task: that claims the task
       end       the parent raises it behind a batch that is in the ring, and lowers it to take tasks back

   Each change is one compare-and-swap (or an addition to the upper half), so a task is either claimed or taken back. A
   worker that died had claimed one task more than it answered, or as many: nobody has to ask which task it was at.

   The numbers of tasks that were taken back are used again by the next batch. So who has claimed a task looks into its
   ring before it takes what it knows under that number: what the parent wrote before it raised `end` is there.

   Results have odd contexts, so the parent can sleep until several of them have come (`quiet`, see port.c); a worker
   that runs out of tasks rings in any case. */

#include "crew.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <errno.h>
#include <string.h>

/* -- Batches on their way out ------------------------------------------------------------------------------- */

enum { MORE, AT_END, LONG_ITEM, ITERATOR_RAISED };

typedef struct {
    char *data;
    size_t size, room;
} Text;

static int
text_add(Text *self, const Encoded *encoded)
{
    size_t needed = self->size + sizeof(TaskHeader) + encoded->size;
    if (needed > self->room) {
        size_t room = needed * 2 + 1024;
        char *data = PyMem_Realloc(self->data, room);
        if (data == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->data = data;
        self->room = room;
    }
    const TaskHeader header = {.size = (uint32_t)encoded->size, .code = encoded->code};
    memcpy(self->data + self->size, &header, sizeof header);
    memcpy(self->data + self->size + sizeof header, encoded->data, encoded->size);
    self->size = needed;
    return 0;
}

/* Takes the next item and adds it; tells how to go on, or -1 with an exception. */
static int
pack_item(CoreState *state, PyObject *iterator, bool main_by_reference, Text *text, PyObject **item)
{
    *item = PyIter_Next(iterator);
    if (*item == NULL) {
        if (!PyErr_Occurred())
            return AT_END;
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        PyObject *type, *trace;
        PyErr_Fetch(&type, item, &trace);
        PyErr_NormalizeException(&type, item, &trace);
        if (trace != NULL)
            PyException_SetTraceback(*item, trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return ITERATOR_RAISED;
    }
    Encoded encoded;
    Encoding how = head_encode(state, main_by_reference, *item, &encoded);
    if (how == ENCODED && encoded.size <= UINT32_MAX) {
        int added = text_add(text, &encoded);
        Py_XDECREF(encoded.owner);
        Py_CLEAR(*item);
        return added < 0 ? -1 : MORE;
    }
    if (how == ENCODED)
        Py_XDECREF(encoded.owner);
    if (how != RAISED)
        return LONG_ITEM;
    Py_CLEAR(*item);
    return -1;
}

PyObject *
core_pack_tasks(PyObject *module, PyObject *args)
{
    PyObject *iterator;
    unsigned int most;
    Py_ssize_t most_bytes;
    int main_by_reference;
    if (!PyArg_ParseTuple(args, "OInp:pack_tasks", &iterator, &most, &most_bytes, &main_by_reference))
        return NULL;
    if (!PyIter_Check(iterator))
        return PyErr_Format(PyExc_TypeError, "pack_tasks() takes an iterator, not %R", Py_TYPE(iterator));
    CoreState *state = PyModule_GetState(module);
    Text text = {0};
    PyObject *item = NULL, *result = NULL;
    unsigned int count = 0;
    int how = MORE;
    while (how == MORE && count < most && text.size < (size_t)most_bytes) {
        how = pack_item(state, iterator, main_by_reference, &text, &item);
        count += how == MORE;
    }
    if (how >= 0)
        result = Py_BuildValue("y#IiO", text.size ? text.data : "", (Py_ssize_t)text.size, count, how,
                               item != NULL ? item : Py_None);
    Py_XDECREF(item);
    PyMem_Free(text.data);
    return result;
}

/* -- Sleeping ----------------------------------------------------------------------------------------------- */

int
crew_sleep(Port *port, PyObject *args, Look *ready)
{
    int poller, peer, timeout, count;
    unsigned int results;
    if (!PyArg_ParseTuple(args, "iiIi:sleep", &poller, &peer, &results, &timeout))
        return -1;
    if (port->released) {
        PyErr_SetString(PyExc_ValueError, "this port has been released");
        return -1;
    }
    if (peer >= 0 && (uint32_t)peer < port->size && port_has_source(port, (uint32_t)peer) &&
        port_spin(port, ready, &port->in[peer]))
        return 1;
    port_expect(port, results);
    bool awake = !port_prepare_sleep(port);
    if (awake || ready(port, NULL)) {
        atomic_store(&page_of(port, port->rank)->sleeping, 0);
        port_expect(port, 0);
        return 1;
    }
    struct epoll_event shown[2];
    port_enter(port);
    Py_BEGIN_ALLOW_THREADS
    count = epoll_wait(poller, shown, 2, timeout);
    Py_END_ALLOW_THREADS
    if (!port->released) {
        atomic_store(&page_of(port, port->rank)->sleeping, 0);
        port_expect(port, 0);
    }
    port_exit(port);
    if (count < 0 && errno != EINTR) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (count < 0)
        return PyErr_CheckSignals() < 0 ? -1 : 0;
    uint64_t rings;
    if (count == 1 && !port->released && shown[0].data.fd == port->out[port->rank].bell)
        return read(port->out[port->rank].bell, &rings, sizeof rings) < 0 ? 0 : 1;
    return count == 0 ? 0 : 2;
}
