#include "extension.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define AT_ONCE 64 /* completions */

static PyObject *queue_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct queue *self;
	int err;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, ":Queue"))
		return NULL;
	self = (struct queue *)alloc(type, 0);
	if (!self)
		return NULL;
	self->pid = getpid();
	err = ndio_queue_new(&self->queue);
	if (err < 0) {
		set_error(-err, ndio_error());
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

void queue_drain(struct queue *queue)
{
	struct ndio_event events[AT_ONCE];
	int i, count;

	while (queue->pending && (count = ndio_queue_reap(queue->queue, events, AT_ONCE, 0)) > 0) {
		queue->pending -= count;
		for (i = 0; i < count; i++)
			call_free(events[i].opaque);
	}
}

static void queue_dealloc(PyObject *object)
{
	struct queue *self = (struct queue *)object;
	PyTypeObject *type = Py_TYPE(object);

	if (self->queue && self->pid == getpid()) {
		queue_drain(self);
		if (!self->pending)
			ndio_queue_free(self->queue);
	}
	((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
	Py_DECREF(type);
}

/* (id, errno, result) */
static PyObject *describe_event(const struct ndio_event *event)
{
	const struct call *call = event->opaque;
	PyObject *result = event->error ? Py_NewRef(Py_None) : call_result(call);

	return result ? Py_BuildValue("(KiN)", call->id, -event->error, result) : NULL;
}

/* All of these are freed, whatever happens. */
static PyObject *list_events(struct queue *self, const struct ndio_event *events, int count)
{
	PyObject *list = PyList_New(0);
	int i;

	self->pending -= count;
	for (i = 0; i < count; i++) {
		PyObject *item = list ? describe_event(&events[i]) : NULL;

		if (list && (!item || PyList_Append(list, item) < 0))
			Py_CLEAR(list);
		Py_XDECREF(item);
		call_free(events[i].opaque);
	}
	return list;
}

static PyObject *queue_fetch(PyObject *object, PyObject *args)
{
	struct queue *self = (struct queue *)object;
	struct ndio_event events[AT_ONCE];
	int count, timeout = 0;

	if (!PyArg_ParseTuple(args, "|i:reap", &timeout))
		return NULL;
	if (self->pid != getpid())
		return set_error(EBADF, "this queue was the parent's, before the fork");
	Py_BEGIN_ALLOW_THREADS
		count = ndio_queue_reap(self->queue, events, AT_ONCE, timeout);
	Py_END_ALLOW_THREADS
	if (count == -EINTR)
		return PyErr_CheckSignals() < 0 ? NULL : PyList_New(0);
	if (count < 0)
		return set_error(-count, ndio_error());
	return list_events(self, events, count);
}

static PyObject *queue_fileno(PyObject *object, PyObject *nothing)
{
	(void)nothing;
	return PyLong_FromLong(ndio_queue_fd(((struct queue *)object)->queue));
}

static PyObject *queue_pending(PyObject *object, PyObject *nothing)
{
	(void)nothing;
	return PyLong_FromSsize_t(((struct queue *)object)->pending);
}

static PyMethodDef queue_methods[] = {
	{ "reap", queue_fetch, METH_VARARGS,
	  "reap(timeout_ms=0): what has completed, as [(id, errno, result)]; some of it, if it is much" },
	{ "fileno", queue_fileno, METH_NOARGS,
	  "a descriptor, readable while there is something to fetch" },
	{ "pending", queue_pending, METH_NOARGS, "how many requests haven't been fetched yet" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot queue_slots[] = {
	{ Py_tp_doc, (void *)"where the completions of requests wait to be fetched" },
	{ Py_tp_new, queue_make },
	{ Py_tp_dealloc, queue_dealloc },
	{ Py_tp_methods, queue_methods },
	{ 0, NULL },
};

PyType_Spec queue_spec = {
	.name = "_ndio.Queue",
	.basicsize = sizeof(struct queue),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = queue_slots,
};
