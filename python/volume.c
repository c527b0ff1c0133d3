/* A volume is open from __init__ to close(). Who is in a call of the library's with it is counted
 * (users), since Python's lock is given back meanwhile: close() takes no more of them, and waits until the
 * last has left.
 */
#include "extension.h"

#include <errno.h>
#include <pythread.h>
#include <string.h>
#include <unistd.h>

#include "notices.h"

enum volume_state { VOLUME_NEW, VOLUME_OPENING, VOLUME_OPEN, VOLUME_ALONE, VOLUME_CLOSED };

struct volume {
	PyObject_HEAD struct ndio_volume *volume;
	enum volume_state state; /* alone: one thread has it, which unlocks it */
	int users;
	PyThread_type_lock left; /* released by the last of them, once it is closed */
	PyObject *queues;        /* a list: of the requests that may be in flight */
	PyObject *locator;       /* as bytes */
	struct notices notices;
	pid_t pid; /* whose it is: no thread crosses a fork */
};

/* ---- who is in it ---- */

static PyObject *volume_error(struct volume *self, int errnum, const char *what)
{
	PyObject *text = PyUnicode_FromFormat(
		"%s: %s", self->locator ? PyBytes_AsString(self->locator) : "ndio", what);
	PyObject *args = text ? Py_BuildValue("(iN)", errnum, text) : NULL;

	if (args)
		PyErr_SetObject(PyExc_OSError, args);
	Py_XDECREF(args);
	return NULL;
}

static bool volume_enter(struct volume *self)
{
	if (self->state == VOLUME_OPEN && self->pid == getpid()) {
		self->users++;
		return true;
	}
	if (self->state == VOLUME_OPEN)
		volume_error(self, EBADF,
			     "it was opened before the fork, and isn't there behind it");
	else if (self->state == VOLUME_ALONE)
		volume_error(self, EBUSY, "it is being unlocked");
	else
		volume_error(self, EBADF, "it is closed");
	return false;
}

static void volume_leave(struct volume *self)
{
	if (--self->users == 0 && self->state == VOLUME_CLOSED)
		PyThread_release_lock(self->left);
}

/* From now on nobody gets in; returns when all are out and every request has completed. The completions
 * stay in their queues. */
static void volume_shut(struct volume *self, enum ndio_close_how how)
{
	struct ndio_volume *volume = self->volume;
	bool wait = self->users > 0;

	self->state = VOLUME_CLOSED;
	if (self->pid != getpid())
		return; /* its threads and its memory are the parent's */
	Py_BEGIN_ALLOW_THREADS
		if (wait)
			PyThread_acquire_lock(self->left, WAIT_LOCK);
		ndio_close(volume, how);
	Py_END_ALLOW_THREADS
	Py_CLEAR(self->queues);
}

/* ---- opened and closed ---- */

/* What __init__ takes; the structs of the library are filled from it. */
static const char *const init_format = "O&z*O&O&O&iO&O&O&O&O&O&O&O&:Volume";

/* Of a path or None. Called with object NULL where what follows couldn't be converted. */
static int convert_header(PyObject *object, void *header)
{
	if (object != Py_None)
		return PyUnicode_FSConverter(object, header);
	*(PyObject **)header = NULL;
	return 1;
}

static int convert_unsigned(PyObject *object, void *value)
{
	uint64_t n;

	if (!uint64_convert(object, &n))
		return 0;
	if (n > UINT32_MAX) {
		PyErr_SetString(PyExc_OverflowError, "a number is too large");
		return 0;
	}
	*(unsigned *)value = (unsigned)n;
	return 1;
}

static int convert_size(PyObject *object, void *size)
{
	uint64_t n;

	if (!uint64_convert(object, &n))
		return 0;
	*(size_t *)size = n;
	return 1;
}

static bool parse_options(struct volume *self, PyObject *args, struct ndio_options *options,
			  Py_buffer *key, PyObject **header, PyObject **trust)
{
	PyObject *locator = NULL;

	if (!PyArg_ParseTuple(args, init_format, PyUnicode_FSConverter, &locator, key,
			      convert_header, header, convert_header, trust, convert_unsigned,
			      &options->flags, &options->direct, convert_unsigned,
			      &options->connections, convert_size, &options->copy_memory,
			      uint64_convert, &options->file_size, convert_unsigned,
			      &options->key_slot, convert_unsigned, &options->max_kdf_time,
			      convert_unsigned, &options->answer_timeout, uint64_convert,
			      &options->unflushed, convert_unsigned, &options->reconnect))
		return false;
	self->locator = locator;
	options->struct_size = sizeof(*options);
	options->key = key->buf;
	options->key_len = key->buf ? (size_t)key->len : 0;
	options->header = *header ? PyBytes_AsString(*header) : NULL;
	options->trust = *trust ? PyBytes_AsString(*trust) : NULL;
	options->notice = notices_add;
	options->opaque = &self->notices;
	return true;
}

static int open_volume(struct volume *self, const struct ndio_options *options)
{
	const char *locator = PyBytes_AsString(self->locator);
	int err;

	Py_BEGIN_ALLOW_THREADS
		err = ndio_open(locator, options, &self->volume);
	Py_END_ALLOW_THREADS
	if (err == 0)
		return 0;
	set_error(-err, ndio_error());
	return -1;
}

static int volume_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
	struct volume *self = (struct volume *)object;
	struct ndio_options options = { 0 };
	Py_buffer key = { 0 };
	PyObject *header = NULL, *trust = NULL;
	int err = -1;

	(void)kwargs;
	if (self->state != VOLUME_NEW) {
		volume_error(self, EBUSY, "it has been opened already");
		return -1;
	}
	self->state = VOLUME_OPENING;
	if (parse_options(self, args, &options, &key, &header, &trust)) {
		err = open_volume(self, &options);
		Py_XDECREF(header);
		Py_XDECREF(trust);
		if (key.obj)
			PyBuffer_Release(&key);
	}
	self->pid = getpid();
	self->state = err ? VOLUME_CLOSED : VOLUME_OPEN;
	return err;
}

static PyObject *volume_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	struct volume *self =
		(struct volume *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

	(void)args;
	(void)kwargs;
	if (!self)
		return NULL;
	pthread_mutex_init(&self->notices.lock, NULL);
	self->queues = PyList_New(0);
	self->left = PyThread_allocate_lock();
	if (!self->queues || !self->left) {
		Py_DECREF(self);
		return PyErr_NoMemory();
	}
	PyThread_acquire_lock(self->left, WAIT_LOCK);
	return (PyObject *)self;
}

static PyObject *volume_close(PyObject *object, PyObject *args)
{
	struct volume *self = (struct volume *)object;
	int cancel = 0;

	if (!PyArg_ParseTuple(args, "|p:close", &cancel))
		return NULL;
	if (self->state == VOLUME_ALONE)
		return volume_error(self, EBUSY, "it is being unlocked");
	if (self->state == VOLUME_OPEN)
		volume_shut(self, cancel ? NDIO_CLOSE_CANCEL : NDIO_CLOSE_WAIT);
	return Py_NewRef(Py_None);
}

/* Forgotten, not closed. It may be part of a circle, and may not be gone afterwards. */
static void volume_finalize(PyObject *object)
{
	struct volume *self = (struct volume *)object;
	PyObject *type, *value, *trace;

	if (self->state != VOLUME_OPEN || self->pid != getpid())
		return;
	PyErr_Fetch(&type, &value, &trace);
	if (PyErr_WarnFormat(PyExc_ResourceWarning, 1, "unclosed volume %s",
			     PyBytes_AsString(self->locator)) < 0)
		PyErr_WriteUnraisable(object);
	if (self->state == VOLUME_OPEN)
		volume_shut(self, NDIO_CLOSE_CANCEL);
	PyErr_Restore(type, value, trace);
}

static int volume_traverse(PyObject *object, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(object));
	Py_VISIT(((struct volume *)object)->queues);
	return 0;
}

static void volume_dealloc(PyObject *object)
{
	struct volume *self = (struct volume *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	if (self->state == VOLUME_OPEN)
		volume_shut(self, NDIO_CLOSE_CANCEL);
	/* A child's copy may be locked for ever, by a thread that it hasn't. */
	if (!self->pid || self->pid == getpid()) {
		notices_clear(&self->notices);
		pthread_mutex_destroy(&self->notices.lock);
	}
	Py_CLEAR(self->queues);
	Py_CLEAR(self->locator);
	if (self->left) {
		PyThread_release_lock(self->left);
		PyThread_free_lock(self->left);
	}
	((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
	Py_DECREF(type);
}

/* ---- asked ---- */

static PyObject *volume_run(PyObject *object, PyObject *args)
{
	struct volume *self = (struct volume *)object;
	PyObject *op, *buffers, *offset, *length, *flags, *result = NULL;
	struct call *call;
	int err;

	if (!PyArg_ParseTuple(args, "OOOOO:_run", &op, &buffers, &offset, &length, &flags))
		return NULL;
	call = call_new(op, buffers, offset, length, flags);
	if (!call)
		return NULL;
	if (volume_enter(self)) {
		Py_BEGIN_ALLOW_THREADS
			err = call_run(call, self->volume);
		Py_END_ALLOW_THREADS
		result = err < 0 ? set_error(-err, ndio_error()) : call_result(call);
		volume_leave(self);
	}
	call_free(call);
	return result;
}

/* This one is held; those of which nothing is in flight aren't any more. */
static bool hold_queue(struct volume *self, PyObject *queue)
{
	Py_ssize_t i;

	for (i = PyList_Size(self->queues) - 1; i >= 0; i--) {
		PyObject *held = PyList_GetItem(self->queues, i);

		if (held == queue)
			return true;
		if (!((struct queue *)held)->pending &&
		    PyList_SetSlice(self->queues, i, i + 1, NULL) < 0)
			return false;
	}
	return PyList_Append(self->queues, queue) == 0;
}

/* Its end will be told by the queue, with its id. Nothing of the request may be touched once it is made:
 * another thread may have fetched it. But that needs Python's lock, which isn't given back here. */
static PyObject *make_request(struct volume *self, struct queue *queue, struct call *call)
{
	int err;

	if (!hold_queue(self, (PyObject *)queue)) {
		call_free(call);
		return NULL;
	}
	err = call_submit(call, self->volume, queue->queue);
	if (err < 0) {
		call_free(call);
		return set_error(-err, ndio_error());
	}
	queue->pending++;
	return Py_NewRef(Py_None);
}

/* _submit(queue, id, op, buffers, offset, length, flags) */
static PyObject *volume_submit(PyObject *object, PyTypeObject *type, PyObject *const *args,
			       Py_ssize_t count, PyObject *names)
{
	struct volume *self = (struct volume *)object;
	struct module_state *state = PyType_GetModuleState(type);
	PyObject *result = NULL;
	struct call *call;
	uint64_t id;

	if (count != 7 || names || Py_TYPE(args[0]) != state->queue_type) {
		PyErr_SetString(PyExc_TypeError,
				"_submit(queue, id, op, buffers, offset, length, flags)");
		return NULL;
	}
	if (!uint64_convert(args[1], &id))
		return NULL;
	call = call_new(args[2], args[3], args[4], args[5], args[6]);
	if (!call)
		return NULL;
	call->id = id;
	if (!volume_enter(self)) {
		call_free(call);
		return NULL;
	}
	result = make_request(self, (struct queue *)args[0], call);
	volume_leave(self);
	return result;
}

/* Something was asked for that has no answer yet, or one that wasn't fetched. */
static bool is_asked(struct volume *self)
{
	Py_ssize_t i;

	for (i = 0; i < PyList_Size(self->queues); i++)
		if (((struct queue *)PyList_GetItem(self->queues, i))->pending)
			return true;
	return false;
}

/* Nobody else may be in it, nor anything in flight. */
static PyObject *volume_unlock(PyObject *object, PyObject *args)
{
	struct volume *self = (struct volume *)object;
	struct ndio_options options = { .struct_size = sizeof(options) };
	Py_buffer key = { 0 };
	PyObject *header = NULL, *trust = NULL;
	int err;

	if (!PyArg_ParseTuple(args, "s*O&O&O&O&O&:_unlock", &key, convert_header, &header,
			      convert_header, &trust, convert_unsigned, &options.flags,
			      convert_unsigned, &options.key_slot, convert_unsigned,
			      &options.max_kdf_time))
		return NULL;
	if (!volume_enter(self))
		goto out;
	volume_leave(self);
	if (self->users || is_asked(self)) {
		volume_error(self, EBUSY, "it is in use, and can't be unlocked");
		goto out;
	}
	options.key = key.buf;
	options.key_len = (size_t)key.len;
	options.header = header ? PyBytes_AsString(header) : NULL;
	options.trust = trust ? PyBytes_AsString(trust) : NULL;
	options.notice = notices_add;
	options.opaque = &self->notices;
	self->state = VOLUME_ALONE;
	Py_BEGIN_ALLOW_THREADS
		err = ndio_unlock(self->volume, &options);
	Py_END_ALLOW_THREADS
	self->state = VOLUME_OPEN;
	if (err < 0)
		set_error(-err, ndio_error());
out:
	Py_XDECREF(header);
	Py_XDECREF(trust);
	PyBuffer_Release(&key);
	return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* ---- what it is ---- */

static PyObject *volume_info(PyObject *object, PyObject *nothing)
{
	struct volume *self = (struct volume *)object;
	struct ndio_info info = { .struct_size = sizeof(info) };
	int err;

	(void)nothing;
	if (!volume_enter(self))
		return NULL;
	err = ndio_get_info(self->volume, &info);
	volume_leave(self);
	if (err < 0)
		return set_error(-err, ndio_error());
	return Py_BuildValue(
		"{sK sI sI sK si sI sK ss sI sN sN sN sI sI sI sI ss sN ss ss ss sK sN ss}", "size",
		(unsigned long long)info.size, "block", info.block, "can", info.can, "target_size",
		(unsigned long long)info.target_size, "luks", info.luks, "sector", info.sector,
		"data_offset", (unsigned long long)info.data_offset, "cipher", info.cipher,
		"key_bits", info.key_bits, "direct", PyBool_FromLong(info.direct), "nbd",
		PyBool_FromLong(info.nbd), "tls", PyBool_FromLong(info.tls), "connections",
		info.connections, "block_minimum", info.block_minimum, "block_preferred",
		info.block_preferred, "block_maximum", info.block_maximum, "protocol",
		info.protocol, "structured_replies", PyBool_FromLong(info.structured_replies),
		"tls_version", info.tls_version, "tls_cipher", info.tls_cipher, "tls_peer",
		info.tls_peer, "reconnect", (unsigned long long)info.reconnect, "fences",
		PyBool_FromLong(info.fences), "instance", info.instance);
}

static PyObject *volume_stats(PyObject *object, PyObject *nothing)
{
	struct volume *self = (struct volume *)object;
	struct ndio_stats s = { .struct_size = sizeof(s) };
	int err;

	(void)nothing;
	if (!volume_enter(self))
		return NULL;
	err = ndio_get_stats(self->volume, &s);
	volume_leave(self);
	if (err < 0)
		return set_error(-err, ndio_error());
	return Py_BuildValue("{sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK}", "reads", s.reads,
			     "writes", s.writes, "others", s.others, "bytes_read", s.bytes_read,
			     "bytes_written", s.bytes_written, "bounced", s.bounced, "zero_copy",
			     s.zero_copy, "partial", s.partial, "pins", s.pins, "unpins", s.unpins,
			     "in_flight", s.in_flight, "errors", s.errors, "server", s.server,
			     "away_ms", s.away_ms, "times_lost", s.times_lost, "unflushed",
			     s.unflushed);
}

/* Also of one that is closed. */
static PyObject *volume_reason(PyObject *object, PyObject *args)
{
	struct volume *self = (struct volume *)object;
	bool open = self->state == VOLUME_OPEN && self->pid == getpid();
	int errnum;

	if (!PyArg_ParseTuple(args, "i:_reason", &errnum))
		return NULL;
	return PyUnicode_FromFormat("%s: %s",
				    self->locator ? PyBytes_AsString(self->locator) : "ndio",
				    ndio_reason(open ? self->volume : NULL, -errnum));
}

static PyObject *volume_notices(PyObject *object, PyObject *nothing)
{
	(void)nothing;
	return notices_list(&((struct volume *)object)->notices);
}

static PyObject *volume_closed(PyObject *object, void *nothing)
{
	(void)nothing;
	return PyBool_FromLong(((struct volume *)object)->state != VOLUME_OPEN);
}

static PyMethodDef volume_methods[] = {
	{ "_run", volume_run, METH_VARARGS, "_run(op, buffers, offset, length, flags)" },
	{ "_submit", (PyCFunction)(void (*)(void))volume_submit,
	  METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
	  "_submit(queue, id, op, buffers, offset, length, flags)" },
	{ "_unlock", volume_unlock, METH_VARARGS,
	  "_unlock(key, header, trust, flags, key_slot, max_kdf_time)" },
	{ "_close", volume_close, METH_VARARGS, "_close(cancel)" },
	{ "_info", volume_info, METH_NOARGS, "struct ndio_info, as a dict" },
	{ "_stats", volume_stats, METH_NOARGS, "struct ndio_stats, as a dict" },
	{ "_reason", volume_reason, METH_VARARGS,
	  "_reason(errno): what an error means, in a sentence" },
	{ "notices", volume_notices, METH_NOARGS,
	  "What should be known though nothing failed, since this was asked last: a list of sentences." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef volume_members[] = {
	{ "closed", volume_closed, NULL, "True: nothing can be done with it any more.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot volume_slots[] = {
	{ Py_tp_doc, (void *)"a disk that is open" },
	{ Py_tp_new, volume_make },
	{ Py_tp_init, volume_init },
	{ Py_tp_finalize, volume_finalize },
	{ Py_tp_traverse, volume_traverse },
	{ Py_tp_dealloc, volume_dealloc },
	{ Py_tp_methods, volume_methods },
	{ Py_tp_getset, volume_members },
	{ 0, NULL },
};

PyType_Spec volume_spec = {
	.name = "_ndio.Volume",
	.basicsize = sizeof(struct volume),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = volume_slots,
};
