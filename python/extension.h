/* ndio for Python, over libndio's public interface alone. What is here is the module _ndio: volumes and
 * queues, with the calls as they are; what programs see is ndio/__init__.py above it.
 *
 * No thread of the library's ever runs Python: completions wait in a queue, notices in a list, until a
 * thread of Python's fetches them. All that this file describes is guarded by Python's lock (the GIL), which
 * is given back where a call may block.
 *
 * Who outlives whom: a request (struct call) that is in flight holds its buffers, and is freed by
 * who fetches its completion from its queue. A volume holds the queues of its requests until it is closed,
 * and then none of its requests is in flight any more. So a queue that nobody holds has nothing but
 * completions that nobody will fetch.
 */
#ifndef NDIO_PYTHON_EXTENSION_H
#define NDIO_PYTHON_EXTENSION_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* one module for 3.11 and all that come */
#include <Python.h>
#include <ndio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* ---- memory of the program's, held: buffers.c ---- */

struct buffers {
	Py_buffer *views;
	struct iovec *iov;
	int count;
	size_t length; /* bytes, of all */
};

/* Of a sequence of bytes-like objects; None is none. False: an exception is set, and nothing held. */
bool buffers_hold(struct buffers *buffers, PyObject *sequence, bool writable);
void buffers_release(struct buffers *buffers);

/* ---- what a volume is asked for: call.c ---- */

enum call_op {
	CALL_READ,
	CALL_WRITE,
	CALL_FLUSH,
	CALL_TRIM,
	CALL_ZERO,
	CALL_CACHE,
	CALL_EXTENTS,
	CALL_OPS
};

struct extent {
	uint64_t offset, length;
	unsigned type;
};

struct call {
	enum call_op op;
	struct buffers buffers;
	uint64_t offset, length; /* bytes; length is none of reads' and writes' */
	unsigned flags;
	struct extent *extents; /* those that there are so far */
	size_t extent_count, extent_room;
	struct queue *queue;   /* borrowed; NULL: a blocking call */
	unsigned long long id; /* that the queue tells its end by */
};

/* Makes one from op, buffers, offset, length, flags. NULL: an exception is set. */
struct call *call_new(PyObject *op, PyObject *buffers, PyObject *offset, PyObject *length,
		      PyObject *flags);
void call_free(struct call *call);

/* Without Python's lock: 0, or a negative errno. */
int call_run(struct call *call, struct ndio_volume *volume);
int call_submit(struct call *call, struct ndio_volume *volume, struct ndio_queue *queue);

/* What a call that has succeeded gives: bytes transferred, extents, or None. */
PyObject *call_result(const struct call *call);

/* For O&: a uint64_t. */
int uint64_convert(PyObject *object, void *value);

/* ---- where completions wait: queue.c ---- */

struct queue {
	PyObject_HEAD struct ndio_queue *queue;
	Py_ssize_t pending; /* requests whose completion wasn't fetched yet */
	pid_t pid;          /* whose it is: no thread crosses a fork */
};

extern PyType_Spec queue_spec;

/* Fetches all completions that there are, and frees their requests: nobody wants to know. */
void queue_drain(struct queue *queue);

/* ---- volumes: volume.c ---- */

extern PyType_Spec volume_spec;

/* ---- module.c ---- */

struct module_state {
	PyTypeObject *queue_type, *volume_type;
};

/* Sets OSError(errno, sentence), of which Python makes PermissionError and the like; returns NULL. */
PyObject *set_error(int errnum, const char *sentence);

#endif
