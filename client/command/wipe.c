#include "command/wipe.h"

#include <inttypes.h>
#include <unistd.h>

#include "base/align.h"
#include "library/ndio.h"
#include "terminal/progress.h"
#include "terminal/say.h"

#define WIPE_PART (UINT64_C(8) << 20) /* bytes of a request: half an area with its tags */
#define WIPE_MANY 8                   /* at once */
#define LOOK_MS   250

/* Zeroes that are encrypted, many requests at a time: the queue has those that are done. */
static int wipe_parts(struct ndio_volume *volume, struct ndio_queue *queue, uint64_t size)
{
	const struct progress_options options = {
		.how = isatty(STDERR_FILENO) ? PROGRESS_TEXT : PROGRESS_OFF,
	};
	const struct ndio_completion completion = { .queue = queue };
	struct ndio_event events[WIPE_MANY];
	struct progress progress;
	uint64_t asked = 0, done = 0;
	unsigned in_flight = 0;
	int ret = 0;

	progress_start(&progress, &options, -1, 0);
	while (in_flight || (asked < size && ret == 0)) {
		while (ret == 0 && asked < size && in_flight < WIPE_MANY) {
			uint64_t part = min_u64(WIPE_PART, size - asked);

			ret = ndio_aio_zero(volume, asked, part, 0, &completion);
			in_flight += ret == 0;
			asked += part;
		}
		for (int i = 0, n = ndio_queue_reap(queue, events, WIPE_MANY, LOOK_MS); i < n;
		     i++) {
			in_flight--;
			done += WIPE_PART;
			ret = events[i].error < 0 ? events[i].error : ret;
		}
		progress_update(&progress, min_u64(done, size), size, false);
	}
	if (ret == 0)
		ret = ndio_flush(volume);
	progress_end(&progress, min_u64(done, size), size, ret == 0);
	return ret;
}

int wipe_volume(const char *locator, const struct key *key, const char *trust,
		unsigned answer_timeout, struct error *err)
{
	const struct ndio_options options = {
		.struct_size = sizeof(options),
		.key = key->data,
		.key_len = key->len,
		.trust = trust,
		.answer_timeout = answer_timeout,
		.notice = say_notice,
	};
	struct ndio_info info = { .struct_size = sizeof(info) };
	struct ndio_volume *volume = NULL;
	struct ndio_queue *queue = NULL;
	int ret = ndio_open(locator, &options, &volume);

	if (ret == 0)
		ret = ndio_get_info(volume, &info);
	if (ret == 0)
		ret = ndio_queue_new(&queue);
	if (ret < 0) {
		error_set(err, -ret, "%s", ndio_error());
	} else {
		ret = wipe_parts(volume, queue, info.size);
		if (ret < 0)
			error_set(err, -ret, "%s: writing zeroes: %s", locator,
				  ndio_reason(volume, ret));
	}
	ndio_close(volume, 0);
	ndio_queue_free(queue);
	return ret;
}
