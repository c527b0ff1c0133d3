/* requests: one of a client's, from its callback to its end.
 *
 * nbdkit's threads (16 a connection) call, each with one request, and sleep in it until it is done:
 * there is nothing to keep but what is on their stacks. After the fork only.
 *
 * What failed is told once, with the disk's name, and the client gets an errno that NBD has. */
#include "requests.h"

#include <errno.h>
#include <inttypes.h>

#include "parameters.h"
#include "report.h"
#include "start.h"

/* What the protocol has no number for nbdkit would tell as EINVAL, as if the client had asked for
 * something wrong. */
static int client_errno(int errnum)
{
	static const int known[] = {
		EPERM, EROFS,  ENOMEM,    EINVAL,     ENOSPC,
		EFBIG, EDQUOT, EOVERFLOW, EOPNOTSUPP, ESHUTDOWN,
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i] == errnum)
			return errnum;
	return EIO;
}

/* What has failed for good. */
static const char *sync_consequence(enum op op, unsigned flags)
{
	if ((op != OP_FLUSH && !(flags & REQ_FUA)) || !syncs_error(&volume->syncs))
		return "";
	return "; " SYNCS_FAILED;
}

/* 0, or a negative errno that has been told. */
static int request_run(enum op op, unsigned flags, uint64_t offset, const struct iovec *iov,
		       extent_fn *extent, void *opaque)
{
	struct ndio_request *request;
	int ret = request_make(volume, op, flags, offset, iov->iov_len, iov, 1, &request);

	if (ret == 0) {
		request->extent = extent;
		request->extent_opaque = opaque;
		ret = start_run(request);
		request_put(request, REF_CALLER);
	}
	/* For these nbdkit falls back to something else, or tells the client by the errno alone. */
	if (ret < 0 && ret != -EOPNOTSUPP)
		nbdkit_error("%s: %s of %zu bytes at %" PRIu64 ": %s%s", volume->target->name,
			     op_names[op], iov->iov_len, offset,
			     target_reason(volume->target, -ret), sync_consequence(op, flags));
	return ret;
}

int requests_run(struct fence_handle *handle, enum op op, unsigned flags, uint64_t offset,
		 uint32_t count, void *buf, extent_fn *extent, void *opaque)
{
	const struct iovec iov = { buf, count };
	int64_t since = meters_begin(meters, op);
	int ret = fence_enter(handle);

	if (ret == 0) {
		ret = request_run(op, config.pin && buf ? flags | REQ_PIN : flags, offset, &iov,
				  extent, opaque);
		fence_leave(handle);
	}
	meters_end(meters, op, since, count, -ret);
	if (ret == 0)
		return 0;
	nbdkit_set_error(client_errno(-ret));
	return -1;
}
