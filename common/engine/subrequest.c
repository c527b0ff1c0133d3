#include "engine/subrequest.h"

#include "base/align.h"

void landed_add(struct landed *landed, struct ndio_subrequest *sub)
{
	sub->next = NULL;
	*(landed->first ? landed->end : &landed->first) = sub;
	landed->end = &sub->next;
}

struct ndio_subrequest *landed_take(struct landed *landed)
{
	struct ndio_subrequest *all = landed->first;

	landed->first = NULL;
	return all;
}

int subrequest_tell_extent(const struct ndio_subrequest *sub, uint64_t at, uint64_t len,
			   unsigned type)
{
	const struct ndio_request *request = sub->request;
	uint64_t start = sub->offset + at;
	uint64_t end = min_u64(start + len, request->start + request->len);

	if (start < request->start)
		start = request->start;
	return start < end ? request->extent(request->extent_opaque, start, end - start, type) : 0;
}
