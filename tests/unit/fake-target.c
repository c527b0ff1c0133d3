#include "fake-target.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/align.h"
#include "engine/cipher.h"
#include "engine/subrequest.h"
#include "memory/secret.h"

#define GARBAGE 0xa5 /* what a read leaves where it hasn't (yet) read */

/* A subrequest in flight, and how it was when it was issued. */
struct flight {
	struct ndio_subrequest *sub;
	struct ndio_subrequest was;
	uint64_t sum; /* of the bytes to write */
	int error;    /* that it will land with, or 0 */
};

struct target_queue {
	struct fake_target *fake;
	struct bvec bounce;
	unsigned depth, nr;
	struct flight flights[]; /* nr of them, in order of issue */
};

static struct fake_target *to_fake(struct target *target)
{
	return (struct fake_target *)target;
}

/* ---- with fake->lock held ---- */

__attribute__((format(printf, 2, 3))) static void violation(struct fake_target *fake,
							    const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (!fake->violations++)
		vsnprintf(fake->violation, sizeof(fake->violation), fmt, args);
	va_end(args);
}

static void remember(struct fake_target *fake, enum fake_event_kind kind,
		     const struct ndio_subrequest *sub)
{
	struct fake_event *event = &fake->events[fake->nr_events];

	if (fake->nr_events == FAKE_EVENTS)
		return;
	fake->nr_events++;
	*event = (struct fake_event){ .kind = kind };
	if (sub) {
		event->request = sub->request;
		event->op = sub->op;
		event->flags = sub->flags;
		event->start = sub->start;
		event->len = sub->len;
		event->io_base = sub->io_base;
		event->result = sub->result;
	}
}

static bool chance(struct fake_target *fake, unsigned one_in)
{
	return rand_r(&fake->random) % one_in == 0;
}

/* ---- what it checks ---- */

static uint64_t sum_of(const uint8_t *bytes, size_t len)
{
	uint64_t sum = len, word;

	for (; len >= sizeof(word); bytes += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		sum = sum * 31 + word;
	}
	while (len--)
		sum = sum * 31 + *bytes++;
	return sum;
}

static bool has_marker(const void *bytes, size_t len)
{
	return memmem(bytes, len, FAKE_MARKER, FAKE_MARKER_LEN);
}

static bool carries_data(const struct ndio_subrequest *sub)
{
	return sub->op == OP_READ || sub->op == OP_WRITE;
}

static void check_place(struct fake_target *fake, const struct ndio_subrequest *sub)
{
	const struct target *target = &fake->target;

	if (sub->op == OP_FLUSH)
		return;
	if (!sub->len)
		violation(fake, "op %d of no bytes", sub->op);
	if (sub->start < fake->data_start || sub->len > fake->data_end - sub->start)
		violation(fake, "op %d of %ju bytes at %ju is outside the data", sub->op,
			  (uintmax_t)sub->len, (uintmax_t)sub->start);
	if (!is_aligned(sub->start, target->align) || !is_aligned(sub->len, target->align))
		violation(fake, "op %d of %ju bytes at %ju is not aligned to %u", sub->op,
			  (uintmax_t)sub->len, (uintmax_t)sub->start, target->align);
}

static void check_memory(struct fake_target *fake, const struct ndio_subrequest *sub)
{
	const struct target *target = &fake->target;

	if (!is_aligned((uintptr_t)sub->io_base, target->mem_align))
		violation(fake, "memory at %p is not aligned to %u", sub->io_base,
			  target->mem_align);
	if (sub->len > target->max_len)
		violation(fake, "%ju bytes are more than max_len, %ju", (uintmax_t)sub->len,
			  target->max_len);
	if (fake->secret && sub->op == OP_WRITE && has_marker(sub->io_base, sub->len))
		violation(fake, "plaintext is written at %ju", (uintmax_t)sub->start);
}

static bool same_question(const struct ndio_subrequest *a, const struct ndio_subrequest *b)
{
	return a->request == b->request && a->op == b->op && a->flags == b->flags &&
	       a->start == b->start && a->len == b->len && a->io_base == b->io_base;
}

/* ---- operations ---- */

static int64_t fake_read(struct target *target, void *buf, size_t len, uint64_t offset)
{
	if (offset > target->size || len > target->size - offset)
		return -EIO;
	memcpy(buf, to_fake(target)->bytes + offset, len);
	return len;
}

static struct target_queue *fake_queue_open(struct target *target, unsigned depth,
					    struct bvec bounce, struct error *err)
{
	struct fake_target *fake = to_fake(target);
	struct target_queue *queue;
	unsigned i;

	queue = calloc(1, sizeof(*queue) + depth * sizeof(queue->flights[0]));
	if (!queue) {
		error_set(err, ENOMEM, "fake: no memory for a queue");
		return NULL;
	}
	queue->fake = fake;
	queue->bounce = bounce;
	queue->depth = depth;
	pthread_mutex_lock(&fake->lock);
	for (i = 0; i < FAKE_QUEUES && fake->queues[i]; i++)
		;
	if (i < FAKE_QUEUES)
		fake->queues[i] = queue;
	fake->bounce = bounce;
	pthread_mutex_unlock(&fake->lock);
	return queue;
}

static void fake_queue_close(struct target_queue *queue)
{
	struct fake_target *fake = queue->fake;

	pthread_mutex_lock(&fake->lock);
	if (queue->nr)
		violation(fake, "a queue is closed with %u in flight", queue->nr);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		if (fake->queues[i] == queue)
			fake->queues[i] = NULL;
	pthread_mutex_unlock(&fake->lock);
	free(queue);
}

static int error_due(struct fake_target *fake)
{
	int error = 0;

	for (unsigned i = 0; i < FAKE_FAILURES; i++)
		if (fake->fail[i].at && --fake->fail[i].at == 0)
			error = fake->fail[i].error;
	return error;
}

static void fake_issue(struct target_queue *queue, struct ndio_subrequest *sub)
{
	struct fake_target *fake = queue->fake;
	struct flight *flight = &queue->flights[queue->nr];

	pthread_mutex_lock(&fake->lock);
	remember(fake, FAKE_ISSUE, sub);
	fake->issued++;
	if (sub->op == OP_WRITE) {
		fake->writes++;
		fake->fua_writes += (sub->flags & REQ_FUA) != 0;
	}
	check_place(fake, sub);
	if (carries_data(sub))
		check_memory(fake, sub);
	else if (sub->len > fake->target.max_other)
		violation(fake, "%ju bytes are more than max_other", (uintmax_t)sub->len);
	for (unsigned i = 0; i < queue->nr; i++)
		if (queue->flights[i].sub == sub)
			violation(fake, "issued while in flight");
	if (queue->nr == queue->depth) {
		violation(fake, "more than %u in flight", queue->depth);
		abort();
	}
	*flight = (struct flight){ .sub = sub, .was = *sub, .error = error_due(fake) };
	queue->nr++;
	if (fake->max_in_flight < queue->nr)
		fake->max_in_flight = queue->nr;
	pthread_mutex_unlock(&fake->lock);
	if (sub->op == OP_READ)
		memset(sub->io_base, GARBAGE, sub->len);
	else if (sub->op == OP_WRITE)
		flight->sum = sum_of(sub->io_base, sub->len);
}

static void fake_submit(struct target_queue *queue)
{
	pthread_mutex_lock(&queue->fake->lock);
	remember(queue->fake, FAKE_SUBMIT, NULL);
	pthread_mutex_unlock(&queue->fake->lock);
}

static uint64_t bytes_to_transfer(struct fake_target *fake, const struct ndio_subrequest *sub)
{
	uint64_t units = sub->len / fake->target.align;

	if (!fake->shorten || chance(fake, 2))
		return sub->len;
	return fake->target.align * (1 + rand_r(&fake->random) % units);
}

/* Does it, with fake->lock held. What it returns is the result. */
static int64_t perform(struct fake_target *fake, const struct ndio_subrequest *sub)
{
	uint8_t *bytes = fake->bytes + sub->start;
	uint64_t len;

	switch (sub->op) {
	case OP_READ:
		len = bytes_to_transfer(fake, sub);
		memcpy(sub->io_base, bytes, len);
		return len;
	case OP_WRITE:
		len = bytes_to_transfer(fake, sub);
		memcpy(bytes, sub->io_base, len);
		return len;
	case OP_ZERO:
		memset(bytes, 0, sub->len);
		return 0;
	case OP_TRIM:
		memset(bytes, GARBAGE, sub->len);
		return 0;
	case OP_FLUSH:
		fake->flushes++;
		return 0;
	case OP_CACHE:
		return 0;
	case OP_EXTENTS:
		return subrequest_tell_extent(sub, 0, sub->len, 0);
	}
	return -EINVAL;
}

static struct ndio_subrequest *land(struct target_queue *queue, unsigned i)
{
	struct fake_target *fake = queue->fake;
	struct flight flight = queue->flights[i];
	struct ndio_subrequest *sub = flight.sub;

	queue->nr--;
	memmove(&queue->flights[i], &queue->flights[i + 1],
		(queue->nr - i) * sizeof(queue->flights[0]));
	if (!same_question(sub, &flight.was))
		violation(fake, "a subrequest changed in flight");
	if (sub->op == OP_WRITE && sum_of(sub->io_base, sub->len) != flight.sum)
		violation(fake, "the bytes to write at %ju changed in flight",
			  (uintmax_t)sub->start);
	sub->result = flight.error ? flight.error : perform(fake, sub);
	remember(fake, FAKE_LAND, sub);
	return sub;
}

static unsigned next_to_land(struct target_queue *queue)
{
	switch (queue->fake->order) {
	case FAKE_IN_ORDER:
		return 0;
	case FAKE_REVERSED:
		return queue->nr - 1;
	case FAKE_RANDOM:
		return rand_r(&queue->fake->random) % queue->nr;
	}
	return 0;
}

/* All of it lands by itself. */
static void fake_cancel(struct target_queue *queue)
{
}

static struct ndio_subrequest *fake_poll(struct target_queue *queue, bool wait, int wake_fd)
{
	struct fake_target *fake = queue->fake;
	struct ndio_subrequest *first = NULL, **last = &first;
	unsigned count = queue->nr;

	if (fake->in_poll)
		fake->in_poll();
	pthread_mutex_lock(&fake->lock);
	remember(fake, FAKE_POLL, NULL);
	if (count && fake->linger) {
		count = chance(fake, 3) ? rand_r(&fake->random) % (count + 1) : 0;
		if (!count && wait)
			count = 1;
	}
	while (count--) {
		struct ndio_subrequest *sub = land(queue, next_to_land(queue));

		sub->next = NULL;
		*last = sub;
		last = &sub->next;
	}
	pthread_mutex_unlock(&fake->lock);
	if (fake->yield)
		sched_yield();
	return first;
}

static void fake_close(struct target *target)
{
	struct fake_target *fake = to_fake(target);

	pthread_mutex_destroy(&fake->lock);
	free(target->name);
	free(fake->bytes);
	free(fake);
}

static const struct target_ops fake_ops = {
	.read = fake_read,
	.queue_open = fake_queue_open,
	.queue_close = fake_queue_close,
	.issue = fake_issue,
	.submit = fake_submit,
	.poll = fake_poll,
	.cancel = fake_cancel,
	.close = fake_close,
};

/* ---- volumes ---- */

static struct fake_target *fake_new(const struct fake_options *options)
{
	struct fake_target *fake = calloc(1, sizeof(*fake));
	unsigned seed = 1;

	assert_non_null(fake);
	fake->data_start = options->data_offset;
	fake->data_end = options->data_offset + options->size;
	fake->random = 1;
	pthread_mutex_init(&fake->lock, NULL);
	fake->target = (struct target){
		.ops = &fake_ops,
		.name = strdup("fake"),
		.size = fake->data_end + options->data_offset,
		.align = options->align,
		.atomic = options->align,
		.mem_align = options->mem_align ? options->mem_align : 1,
		.max_len = options->max_len ? options->max_len : 1 << 20,
		.direct = true,
		.can_flush = true,
		.can_trim = true,
		.can_zero = true,
		.can_fua = true,
		.max_other = UINT64_C(1) << 40,
		.max_queues = 64,
		.can_fast_zero = true,
		.can_extents = true,
		.can_cache = true,
	};
	fake->bytes = malloc(fake->target.size);
	assert_non_null(fake->bytes);
	for (uint64_t i = 0; i < fake->data_end; i++)
		fake->bytes[i] = rand_r(&seed);
	memcpy(fake->bytes + fake->data_end, fake->bytes, fake->data_start);
	return fake;
}

static void set_luks(struct luks *luks, const struct fake_options *options)
{
	struct error err;

	luks->version = 2;
	snprintf(luks->cipher, sizeof(luks->cipher), "%s", options->cipher);
	luks->sector = options->sector;
	luks->data_offset = options->data_offset;
	luks->iv_offset = options->iv_offset;
	luks->key_len = strstr(options->cipher, "xts") ? 64 : 32;
	luks->key = secret_alloc(luks->key_len, &err);
	assert_non_null(luks->key);
	for (size_t i = 0; i < luks->key_len; i++)
		((uint8_t *)luks->key)[i] = i * 7 + 1;
}

struct volume *fake_volume(const struct fake_options *options, struct fake_target **fake)
{
	struct volume *volume = volume_new();

	assert_non_null(volume);
	*fake = fake_new(options);
	volume->target = &(*fake)->target;
	volume->encrypted = options->cipher;
	if (options->cipher)
		set_luks(&volume->luks, options);
	volume->sector = options->cipher ? options->sector : options->align;
	volume->block = volume->sector > options->align ? volume->sector : options->align;
	assert_true(is_aligned(options->size, volume->block));
	volume->data_offset = options->data_offset;
	volume->size = options->size;
	volume->can_trim = true;
	volume->can_fast_zero = volume->can_extents = !options->cipher;
	volume->reads_tear = volume_reads_tear(volume);
	return volume;
}

/* One sector at a time. in and out don't overlap. */
static void encrypt(struct volume *volume, const uint8_t *in, uint8_t *out)
{
	const struct luks *luks = &volume->luks;
	struct cipher *cipher;

	if (!volume->encrypted) {
		memcpy(out, in, volume->size);
		return;
	}
	cipher = cipher_new(luks->cipher, luks->key, luks->key_len, luks->sector, NULL);
	assert_non_null(cipher);
	for (uint64_t at = 0; at < volume->size; at += luks->sector)
		assert_int_equal(cipher_encrypt(cipher, luks->iv_offset + at / 512, in + at,
						out + at, luks->sector, NULL),
				 0);
	cipher_free(cipher);
}

void fake_fill(struct volume *volume, const void *plain)
{
	encrypt(volume, plain, to_fake(volume->target)->bytes + volume->data_offset);
}

/* Before and after the volume, where nobody writes. */
static void assert_noise(const struct fake_target *fake)
{
	const uint8_t *after = fake->bytes + fake->data_end;
	unsigned seed = 1;

	for (uint64_t i = 0; i < fake->data_start; i++)
		if (fake->bytes[i] != (uint8_t)rand_r(&seed))
			fail_msg("byte %ju of the target, before the volume, has changed",
				 (uintmax_t)i);
	if (memcmp(fake->bytes, after, fake->data_start))
		fail_msg("the target has changed after the volume");
}

void fake_assert_holds(struct volume *volume, const void *plain)
{
	const struct fake_target *fake = to_fake(volume->target);
	const uint8_t *is = fake->bytes + volume->data_offset;
	uint8_t *expected = malloc(volume->size);

	assert_non_null(expected);
	encrypt(volume, plain, expected);
	fake_assert_same(is, expected, volume->size);
	free(expected);
	assert_noise(fake);
}

void fake_assert_obeyed(struct fake_target *fake)
{
	if (fake->violations)
		fail_msg("%u violations, first: %s", fake->violations, fake->violation);
}

void fake_assert_same(const void *a, const void *b, size_t len)
{
	if (memcmp(a, b, len))
		assert_memory_equal(a, b, len);
}

void fake_forget(struct fake_target *fake)
{
	fake->issued = fake->writes = fake->fua_writes = fake->flushes = 0;
	fake->max_in_flight = 0;
	fake->nr_events = 0;
}

unsigned fake_in_flight(struct fake_target *fake, const struct ndio_request *request)
{
	unsigned count = 0;

	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		const struct target_queue *queue = fake->queues[i];

		for (unsigned j = 0; queue && j < queue->nr; j++)
			count += !request || queue->flights[j].was.request == request;
	}
	return count;
}

bool fake_marker_in_bounce(const struct fake_target *fake)
{
	return has_marker(fake->bounce.base, fake->bounce.len);
}

void fake_noise(void *buf, size_t len, unsigned *seed)
{
	uint64_t state = rand_r(seed) | 1;
	uint8_t *bytes = buf;

	for (size_t at = 0; at < len; at += sizeof(state)) {
		state = state * 6364136223846793005 + 1442695040888963407;
		memcpy(bytes + at, &state, min_u64(sizeof(state), len - at));
	}
	for (size_t at = 0; at + FAKE_MARKER_LEN <= len; at += 64)
		memcpy(bytes + at, FAKE_MARKER, FAKE_MARKER_LEN);
}

/* ---- running ---- */

static void not_granted(struct range *range)
{
	(void)range;
	abort(); /* one thread alone can't wait for itself */
}

void fake_start(struct channel *channel, struct ndio_request *request)
{
	request_get(request, REF_CHANNEL);
	channel_start(channel, request);
}

void fake_drive(struct channel *channel, bool wait, int wake_fd)
{
	bool ended = channel_send(channel, false);

	channel_wait(channel, wait && !ended, wake_fd);
	channel_land(channel);
}

int fake_run(struct channel *channel, struct ndio_request *request)
{
	request->range.granted = not_granted;
	if (request->has_range)
		assert_true(range_acquire(&request->volume->ranges, &request->range));
	fake_start(channel, request);
	while (request->state != REQUEST_COMPLETED)
		fake_drive(channel, true, -1);
	return request->error;
}
