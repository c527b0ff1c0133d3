#include "engine/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"

#define MEM_ALIGN  65536 /* at least any target's */
#define READ_CHUNK (1024 * 1024)

int target_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	size_t chunk_len = min_u64(READ_CHUNK, target->max_len);
	uint8_t *chunk = aligned_alloc(MEM_ALIGN, round_up(chunk_len, MEM_ALIGN));
	size_t done = 0;
	int ret = 0;

	if (!chunk)
		return -ENOMEM;
	while (done < len && ret == 0) {
		size_t lead = (offset + done) & (target->align - 1);
		size_t part = min_u64(len - done, chunk_len - lead);
		int64_t n = target->ops->read(target, chunk, round_up(lead + part, target->align),
					      offset + done - lead);

		if (n < 0) {
			ret = n;
		} else if ((uint64_t)n <= lead) {
			ret = -EIO;
		} else {
			part = min_u64(part, n - lead);
			memcpy((uint8_t *)buf + done, chunk + lead, part);
			done += part;
		}
	}
	free(chunk);
	return ret;
}

const char *target_reason(const struct target *target, int errnum)
{
	return errnum == ETIMEDOUT && target->timed_out ? target->timed_out : error_reason(errnum);
}
