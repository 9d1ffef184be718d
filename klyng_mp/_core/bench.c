/* A pool's worker at work: it claims a task, calls its function, writes the result into the ring, and so on, without a
   layer of Python in between; crew.c tells the story.

   Whatever is unusual (an argument or a result that needs the codec, an exception, a full ring, news) it leaves to
   worker.py, which calls again when it has dealt with it. */

#include "crew.h"

#include <string.h>

#define PARENT 0 /* its rank, and its incarnation */

enum { CALL, CALL_STAR }; /* how the function is called; tasks.py has the names */
enum { LEFT_NEWS = 1, LEFT_TASK, LEFT_ERROR, LEFT_RESULT }; /* what is left to Python */

typedef struct {
    uint32_t start, count; /* the tasks' numbers */
    uint64_t context; /* of the results */
    int64_t first;    /* index of the first task within its job */
    int how;
    PyObject *function; /* NULL: each task is left to Python */
    PyObject *note;     /* what Python wants to know of it then */
    PyObject *text;     /* bytes, with the tasks */
    size_t offset;      /* in them, of the task that is next */
    uint32_t at;        /* number of that task, from the start */
    PyObject *buffers;
    Py_ssize_t buffer; /* the first one of that task */
} Batch;

typedef struct {
    PyObject_HEAD
    CoreState *state;
    Port *port;
    Batch *batches; /* a ring of them would save little: they are few */
    Py_ssize_t count, room;
    bool claimed;  /* the task `task` */
    bool up_to_date;
    uint32_t task;
} Bench;

static void
batch_clear(Batch *self)
{
    Py_CLEAR(self->function);
    Py_CLEAR(self->note);
    Py_CLEAR(self->text);
    Py_CLEAR(self->buffers);
}

static inline _Atomic uint64_t *
own_word(Port *port)
{
    return &page_of(port, port->rank)->ahead;
}

static bool
has_work(Port *port, Ring *ring)
{
    return left_of(atomic_load(own_word(port))) > 0 || port_has_news(port, ring);
}

/* -- Life --------------------------------------------------------------------------------------------------- */

static PyObject *
bench_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    CoreState *state = state_of_type(type);
    PyObject *port;
    if (!PyArg_ParseTuple(args, "O!:Bench", state->port_type, &port))
        return NULL;
    Bench *self = (Bench *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->port = (Port *)Py_NewRef(port);
    return (PyObject *)self;
}

static int
bench_traverse(Bench *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->port);
    for (Py_ssize_t index = 0; index < self->count; index++) {
        Py_VISIT(self->batches[index].function);
        Py_VISIT(self->batches[index].note);
        Py_VISIT(self->batches[index].buffers);
    }
    return 0;
}

static int
bench_clear(Bench *self)
{
    while (self->count > 0) {
        Batch last = self->batches[--self->count];
        batch_clear(&last);
    }
    return 0;
}

static void
bench_dealloc(Bench *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    bench_clear(self);
    PyMem_Free(self->batches);
    Py_XDECREF(self->port);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- Batches ------------------------------------------------------------------------------------------------ */

/* Forgets the tasks from a number on: they were taken back, and others have their numbers now. */
static void
forget_from(Bench *self, uint32_t start)
{
    while (self->count > 0) {
        Batch *last = &self->batches[self->count - 1];
        if ((int32_t)(start - last->start) > 0) {
            if ((int32_t)(last->start + last->count - start) > 0)
                last->count = start - last->start;
            return;
        }
        Batch gone = *last;
        self->count--;
        batch_clear(&gone);
    }
}

static PyObject *
bench_add(Bench *self, PyObject *args)
{
    unsigned int start, count;
    unsigned long long context;
    long long first;
    int how;
    PyObject *function, *note, *text, *buffers;
    Py_ssize_t offset, buffer;
    if (!PyArg_ParseTuple(args, "IIKLiOOSnOn:add", &start, &count, &context, &first, &how, &function, &note, &text,
                          &offset, &buffers, &buffer))
        return NULL;
    if (offset < 0 || offset > PyBytes_GET_SIZE(text))
        return PyErr_Format(PyExc_ValueError, "tasks cannot begin at %zd", offset);
    forget_from(self, start);
    if (self->count == self->room) {
        Py_ssize_t room = self->room * 2 + 8;
        Batch *batches = PyMem_Realloc(self->batches, (size_t)room * sizeof *batches);
        if (batches == NULL)
            return PyErr_NoMemory();
        self->batches = batches;
        self->room = room;
    }
    self->batches[self->count++] = (Batch){
        .start = start,
        .count = count,
        .context = context,
        .first = first,
        .how = how,
        .function = function == Py_None ? NULL : Py_NewRef(function),
        .note = Py_NewRef(note),
        .text = Py_NewRef(text),
        .offset = (size_t)offset,
        .buffers = Py_NewRef(buffers),
        .buffer = buffer,
    };
    Py_RETURN_NONE;
}

/* Drops the batches before the task that was claimed; returns its own, or NULL with an exception. */
static Batch *
find_batch(Bench *self)
{
    while (self->count > 0 && (int32_t)(self->task - self->batches[0].start - self->batches[0].count) >= 0) {
        Batch gone = self->batches[0];
        self->count--;
        memmove(self->batches, self->batches + 1, (size_t)self->count * sizeof *self->batches);
        batch_clear(&gone);
    }
    if (self->count > 0 && (int32_t)(self->task - self->batches[0].start) >= 0)
        return &self->batches[0];
    PyErr_Format(PyExc_RuntimeError, "task %u was claimed and never came", self->task);
    return NULL;
}

/* Goes to the task that was claimed; 0, or -1 with an exception. */
static int
find_task(Bench *self, Batch *batch, TaskHeader *header, const char **head)
{
    const char *text = PyBytes_AS_STRING(batch->text);
    const size_t size = (size_t)PyBytes_GET_SIZE(batch->text);
    for (;;) {
        if (size - batch->offset < sizeof *header)
            break;
        memcpy(header, text + batch->offset, sizeof *header);
        *head = text + batch->offset + sizeof *header;
        if (size - batch->offset - sizeof *header < header->size)
            break;
        bool found = batch->at == self->task - batch->start;
        batch->offset += sizeof *header + header->size;
        batch->buffer += header->buffers;
        batch->at++;
        if (found)
            return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "task %u is not in its batch", self->task);
    return -1;
}

/* -- Work --------------------------------------------------------------------------------------------------- */

/* What is left to Python: (kind, context, index, note, argument or code, result or error or head, buffers). */
static PyObject *
leave_to_python(int kind, const Batch *task, PyObject *first, PyObject *second, PyObject *third)
{
    return Py_BuildValue("(iKLOOOO)", kind, task->context, task->first, task->note, first, second, third);
}

/* Returns the buffers of a task, which its batch does not keep: they are the task's own, to be changed or given away. */
static PyObject *
take_buffers(PyObject *all, Py_ssize_t first, Py_ssize_t count)
{
    PyObject *buffers = count ? PySequence_GetSlice(all, first, first + count) : PyTuple_New(0);
    for (Py_ssize_t index = first; buffers != NULL && PyList_CheckExact(all) && index < first + count; index++)
        if (PyList_SetItem(all, index, Py_NewRef(Py_None)) < 0)
            Py_CLEAR(buffers);
    return buffers;
}

static PyObject *
leave_task(const Batch *task, const TaskHeader *header, const char *head, Py_ssize_t buffer)
{
    PyObject *code = PyLong_FromLong(header->code);
    PyObject *bytes = PyBytes_FromStringAndSize(head, header->size);
    PyObject *buffers = take_buffers(task->buffers, buffer, header->buffers);
    PyObject *result = NULL;
    if (code != NULL && bytes != NULL && buffers != NULL)
        result = leave_to_python(LEFT_TASK, task, code, bytes, buffers);
    Py_XDECREF(code);
    Py_XDECREF(bytes);
    Py_XDECREF(buffers);
    return result;
}

static PyObject *
leave_error(const Batch *task, PyObject *argument)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL; /* it ends the worker */
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    PyObject *result = leave_to_python(LEFT_ERROR, task, argument, error, Py_None);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return result;
}

/* Writes a result into the ring; false where Python has to do it; -1 with an exception. */
static int
send_result(Bench *self, const Batch *task, PyObject *value)
{
    Encoded encoded;
    Encoding how = head_encode(self->state, true, value, &encoded);
    if (how != ENCODED)
        return how == RAISED ? -1 : false;
    Outcome outcome = NO_ROOM;
    if (!self->port->released) {
        const Small small = {task->context, self->port->rank, PARENT, task->first, encoded.code, encoded.data, encoded.size};
        outcome = port_send_small(self->port, PARENT, &small);
    }
    Py_XDECREF(encoded.owner);
    return outcome == SENT;
}

/* Does one task that was claimed; 1 when it is done and answered, 0 with what is left to Python, -1 with an exception.
   `task` is a copy with references of its own: whatever runs may change the bench. */
static int
do_task(Bench *self, const Batch *task, const TaskHeader *header, const char *head, PyObject **left)
{
    PyObject *argument = head_decode(self->state, NULL, header->code, head, header->size, NULL, NULL);
    if (argument == NULL)
        return -1;
    PyObject *value = NULL;
    if (task->how == CALL)
        value = PyObject_CallOneArg(task->function, argument);
    else if (PyTuple_CheckExact(argument))
        value = PyObject_CallObject(task->function, argument);
    else {
        PyObject *tuple = PySequence_Tuple(argument);
        value = tuple == NULL ? NULL : PyObject_CallObject(task->function, tuple);
        Py_XDECREF(tuple);
    }
    int done = 0;
    if (value == NULL)
        *left = leave_error(task, argument);
    else if ((done = send_result(self, task, value)) == 0)
        *left = leave_to_python(LEFT_RESULT, task, argument, value, Py_None);
    Py_XDECREF(value);
    Py_DECREF(argument);
    return done > 0 ? 1 : *left == NULL ? -1 : 0;
}

/* Whether the core can make the argument and call the function. */
static bool
is_usual(const Batch *task, const TaskHeader *header)
{
    return task->function != NULL && task->how <= CALL_STAR && header->buffers == 0 && header->code != PICKLE &&
           head_is_everyday(header->code, header->size);
}

static int
begin_task(Bench *self, PyObject **left)
{
    Batch *batch = find_batch(self);
    TaskHeader header;
    const char *head;
    if (batch == NULL)
        return -1;
    if (find_task(self, batch, &header, &head) < 0)
        return -1;
    Batch task = *batch;
    task.first += task.at - 1;
    Py_XINCREF(task.function);
    Py_INCREF(task.note);
    Py_INCREF(task.text);
    Py_INCREF(task.buffers);
    self->claimed = false;
    int done;
    if (is_usual(&task, &header))
        done = do_task(self, &task, &header, head, left);
    else {
        *left = leave_task(&task, &header, head, task.buffer - header.buffers);
        done = *left == NULL ? -1 : 0;
    }
    batch_clear(&task);
    return done;
}

static PyObject *
bench_work(Bench *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *left = NULL;
    for (;;) {
        if (self->port->released)
            return PyErr_Format(PyExc_ValueError, "this port has been released");
        if (!self->claimed) {
            if (!claim_task(own_word(self->port), &self->task)) {
                port_ring_bell(self->port, PARENT);
                Py_RETURN_NONE;
            }
            self->claimed = true;
            self->up_to_date = !port_has_news(self->port, &self->port->in[PARENT]);
        }
        if (!self->up_to_date) {
            self->up_to_date = true;
            return Py_BuildValue("(i)", LEFT_NEWS);
        }
        int done = begin_task(self, &left);
        if (done < 0)
            return NULL;
        if (done == 0)
            return left;
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

static PyObject *
bench_sleep(Bench *self, PyObject *args)
{
    int how = crew_sleep(self->port, args, has_work);
    return how < 0 ? NULL : PyLong_FromLong(how);
}

static PyObject *
bench_claims(Bench *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->port->released ? 0 : next_of(atomic_load(own_word(self->port))));
}

static PyMethodDef bench_methods[] = {
    {"add", (PyCFunction)bench_add, METH_VARARGS,
     "Know a batch of tasks, instead of all that have its numbers or later ones: number of the first task, how many, context\n"
     "of their results, index of the first one, how they are called, function (None: each is left to the caller), a note for\n"
     "the caller, the text, where the tasks begin in it, the buffers, and the first one of them that is a task's."},
    {"work", (PyCFunction)bench_work, METH_NOARGS,
     "Do tasks; return None when there is none, or else what is left to the caller: (1,) to read messages, or\n"
     "(kind, context, index, note, ...) with kind 2 to do a task (code, head, buffers), 3 to send an error (argument, error,\n"
     "None), 4 to send a result (argument, result, None)."},
    {"sleep", (PyCFunction)bench_sleep, METH_VARARGS,
     "As Ledger.sleep, but also until there is a task to begin."},
    {NULL},
};

static PyGetSetDef bench_properties[] = {
    {"claims", (getter)bench_claims, NULL, "how many tasks were begun, modulo 2**32", NULL},
    {NULL},
};

static PyType_Slot bench_slots[] = {
    {Py_tp_doc, "The tasks that a pool's worker has."},
    {Py_tp_new, bench_new},
    {Py_tp_dealloc, bench_dealloc},
    {Py_tp_traverse, bench_traverse},
    {Py_tp_clear, bench_clear},
    {Py_tp_methods, bench_methods},
    {Py_tp_getset, bench_properties},
    {0, NULL},
};

static PyType_Spec bench_spec = {
    .name = "klyng_mp._core.Bench",
    .basicsize = sizeof(Bench),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bench_slots,
};

int
bench_setup(PyObject *module, CoreState *state)
{
    state->bench_type = add_type(module, &bench_spec);
    return state->bench_type == NULL ? -1 : 0;
}
