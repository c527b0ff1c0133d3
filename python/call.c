#include "extension.h"

#include <errno.h>
#include <stdlib.h>

/* ---- made from Python's objects ---- */

int uint64_convert(PyObject *object, void *value)
{
	PyObject *number = PyNumber_Index(object);
	unsigned long long n;

	if (!number)
		return 0;
	n = PyLong_AsUnsignedLongLong(number);
	Py_DECREF(number);
	if (n == (unsigned long long)-1 && PyErr_Occurred())
		return 0;
	*(uint64_t *)value = n;
	return 1;
}

struct call *call_new(PyObject *op, PyObject *buffers, PyObject *offset, PyObject *length,
		      PyObject *flags)
{
	struct call *call = PyMem_Calloc(1, sizeof(*call));
	uint64_t number, bits;

	if (!call) {
		PyErr_NoMemory();
		return NULL;
	}
	if (!uint64_convert(op, &number) || !uint64_convert(offset, &call->offset) ||
	    !uint64_convert(length, &call->length) || !uint64_convert(flags, &bits))
		goto fail;
	if (number >= CALL_OPS || bits > UINT32_MAX) {
		PyErr_SetString(PyExc_ValueError, "no such operation, or flag");
		goto fail;
	}
	call->op = (enum call_op)number;
	call->flags = (unsigned)bits;
	if (!buffers_hold(&call->buffers, buffers, call->op == CALL_READ))
		goto fail;
	return call;
fail:
	PyMem_Free(call);
	return NULL;
}

void call_free(struct call *call)
{
	buffers_release(&call->buffers);
	free(call->extents);
	PyMem_Free(call);
}

/* ---- run, in any thread, without Python ---- */

/* On a thread of the library's, or on the one that called. */
static int keep_extent(void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
	struct call *call = opaque;

	if (call->extent_count == call->extent_room) {
		size_t room = call->extent_room ? 2 * call->extent_room : 64;
		struct extent *grown = reallocarray(call->extents, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		call->extents = grown;
		call->extent_room = room;
	}
	call->extents[call->extent_count++] = (struct extent){ offset, length, type };
	return 0;
}

int call_run(struct call *call, struct ndio_volume *volume)
{
	const struct buffers *b = &call->buffers;
	ssize_t n;

	switch (call->op) {
	case CALL_READ:
		n = ndio_preadv(volume, b->iov, b->count, call->offset, call->flags);
		return n < 0 ? (int)n : 0;
	case CALL_WRITE:
		n = ndio_pwritev(volume, b->iov, b->count, call->offset, call->flags);
		return n < 0 ? (int)n : 0;
	case CALL_FLUSH:
		return ndio_flush(volume);
	case CALL_TRIM:
		return ndio_trim(volume, call->offset, call->length, call->flags);
	case CALL_ZERO:
		return ndio_zero(volume, call->offset, call->length, call->flags);
	case CALL_CACHE:
		return ndio_cache(volume, call->offset, call->length);
	default:
		return ndio_extents(volume, call->offset, call->length, keep_extent, call);
	}
}

int call_submit(struct call *call, struct ndio_volume *volume, struct ndio_queue *queue)
{
	const struct ndio_completion done = { .queue = queue, .opaque = call };
	const struct buffers *b = &call->buffers;

	switch (call->op) {
	case CALL_READ:
		return ndio_aio_preadv(volume, b->iov, b->count, call->offset, call->flags, &done);
	case CALL_WRITE:
		return ndio_aio_pwritev(volume, b->iov, b->count, call->offset, call->flags, &done);
	case CALL_FLUSH:
		return ndio_aio_flush(volume, &done);
	case CALL_TRIM:
		return ndio_aio_trim(volume, call->offset, call->length, call->flags, &done);
	case CALL_ZERO:
		return ndio_aio_zero(volume, call->offset, call->length, call->flags, &done);
	case CALL_CACHE:
		return ndio_aio_cache(volume, call->offset, call->length, &done);
	default:
		return ndio_aio_extents(volume, call->offset, call->length, keep_extent, call,
					&done);
	}
}

/* ---- and what it gave ---- */

static PyObject *list_extents(const struct call *call)
{
	PyObject *list = PyList_New((Py_ssize_t)call->extent_count);
	size_t i;

	for (i = 0; list && i < call->extent_count; i++) {
		const struct extent *e = &call->extents[i];
		PyObject *item = Py_BuildValue("(KKI)", (unsigned long long)e->offset,
					       (unsigned long long)e->length, e->type);

		if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
			Py_CLEAR(list);
	}
	return list;
}

PyObject *call_result(const struct call *call)
{
	if (call->op == CALL_READ || call->op == CALL_WRITE)
		return PyLong_FromSize_t(call->buffers.length);
	if (call->op == CALL_EXTENTS)
		return list_extents(call);
	return Py_NewRef(Py_None);
}
