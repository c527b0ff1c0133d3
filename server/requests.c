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

int requests_run(enum op op, unsigned flags, uint64_t offset, uint32_t count, void *buf,
		 extent_fn *extent, void *opaque)
{
	const struct iovec iov = { buf, count };
	struct ndio_request *request;
	int ret;

	if (config.pin && buf)
		flags |= REQ_PIN;
	ret = request_make(volume, op, flags, offset, count, &iov, 1, &request);
	if (ret == 0) {
		request->extent = extent;
		request->extent_opaque = opaque;
		ret = start_run(request);
		request_put(request, REF_CALLER);
	}
	if (ret == 0)
		return 0;
	/* For these nbdkit falls back to something else, or tells the client by the errno alone. */
	if (ret != -EOPNOTSUPP)
		nbdkit_error("%s: %s of %" PRIu32 " bytes at %" PRIu64 ": %s%s",
			     volume->target->name, op_names[op], count, offset,
			     target_reason(volume->target, -ret), sync_consequence(op, flags));
	nbdkit_set_error(client_errno(-ret));
	return -1;
}
