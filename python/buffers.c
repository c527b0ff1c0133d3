#include "extension.h"

#include <limits.h>

/* Holds one more. */
static bool hold_one(struct buffers *buffers, PyObject *object, bool writable)
{
	Py_buffer *view = &buffers->views[buffers->count];

	if (PyObject_GetBuffer(object, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
		return false;
	buffers->iov[buffers->count++] = (struct iovec){ view->buf, (size_t)view->len };
	buffers->length += (size_t)view->len;
	return true;
}

static bool hold_all(struct buffers *buffers, PyObject *tuple, bool writable)
{
	Py_ssize_t i, count = PyTuple_Size(tuple);

	if (count > INT_MAX) {
		PyErr_SetString(PyExc_OverflowError, "too many buffers");
		return false;
	}
	buffers->views = PyMem_Calloc((size_t)count, sizeof(*buffers->views));
	buffers->iov = PyMem_Calloc((size_t)count, sizeof(*buffers->iov));
	if (!buffers->views || !buffers->iov) {
		PyErr_NoMemory();
		return false;
	}
	for (i = 0; i < count; i++)
		if (!hold_one(buffers, PyTuple_GetItem(tuple, i), writable))
			return false;
	return true;
}

bool buffers_hold(struct buffers *buffers, PyObject *sequence, bool writable)
{
	PyObject *tuple;
	bool held;

	*buffers = (struct buffers){ 0 };
	if (sequence == Py_None)
		return true;
	tuple = PySequence_Tuple(sequence);
	if (!tuple)
		return false;
	held = hold_all(buffers, tuple, writable);
	Py_DECREF(tuple);
	if (!held)
		buffers_release(buffers);
	return held;
}

void buffers_release(struct buffers *buffers)
{
	int i;

	for (i = 0; i < buffers->count; i++)
		PyBuffer_Release(&buffers->views[i]);
	PyMem_Free(buffers->views);
	PyMem_Free(buffers->iov);
	*buffers = (struct buffers){ 0 };
}
