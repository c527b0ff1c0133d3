/* ndio-model [OPTION...] LOCATOR: asynchronous requests of odd shapes against a model in memory.
 *
 *   -k KEYFILE  -T TRUSTFILE  -c CONNECTIONS  -d (NDIO_OPEN_DISCARD)
 *   -t THREADS=4  -n REQUESTS=1500 (of each thread, in each part)  -s SEED=1
 *   -e FILE   the server fails requests at random, with EIO, while this file exists
 *   -o FILE   write there what the volume holds at the end, for others to compare
 *
 * Three parts. In the first each thread has an area of its own; in the second the threads' areas
 * are narrow stripes, so that they share blocks; what a thread has in flight never overlaps by
 * bytes, so each read has one right answer. In the third, writes that overlap by bytes are in
 * flight together, and each byte must be that of a writer that covered it.
 *
 * Every iovec array is overwritten when its call returns, and with NDIO_COPY the data as well.
 * Every request is told of once. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "ndio-client.h"

#define MAX_THREADS 16
#define DEPTH       24
#define MAX_IOV     40
#define GAP         40 /* bytes at the most, between the runs of a request */
#define MAX_LEN     (300 * 1024)
#define MEMORY      (MAX_LEN + (MAX_IOV + 1) * GAP)
#define AREA        (1024 * 1024) /* of a thread */
#define STRIPE      171
#define SHARED      (512 * 1024) /* where the stripes are */
#define GUARD       0xa5

static struct {
	struct opening opening;
	unsigned threads;
	unsigned long requests;
	uint64_t seed;
	const char *errors, *model_path;
} options = { .threads = 4, .requests = 1500, .seed = 1 };

static struct ndio_volume *volume;
static struct ndio_info info;
static uint64_t size; /* of the part of the volume that is used */
static uint8_t *model;
static uint8_t *known; /* 1 where the model says what the byte is */
static atomic_uint mismatches;
static atomic_ulong made, failed, refused;

enum kind { READ, WRITE, ZERO, TRIM, FLUSH, CACHE, EXTENTS };

struct thread;

/* One request: never reused, so that a second completion is seen whenever it comes. */
struct ticket {
	struct thread *thread;
	struct ticket *next; /* in the list of those told of by callback */
	struct slot *slot;
	enum kind kind;
	uint64_t start, len;
	int error;
	bool read_back; /* its callback makes a read of the same bytes */
	bool chained;   /* and this is such a read */
	uint64_t extents_end;
	atomic_uint completions;
};

struct slot {
	struct ticket *ticket; /* NULL: free */
	struct iovec iov[MAX_IOV];
	int iovcnt;
	uint8_t *memory; /* MEMORY bytes */
};

struct thread {
	pthread_t thread;
	unsigned id;
	uint64_t random;
	bool striped;
	struct ndio_queue *queue;
	int eventfd; /* counts those told of by callback */
	pthread_mutex_t lock;
	struct ticket *called_back;
	struct slot slots[DEPTH];
	unsigned in_flight;
	struct ticket *tickets;
	unsigned long nr_tickets;
};

static struct thread threads[MAX_THREADS];

static void mismatch(const char *what, uint64_t at, unsigned got, unsigned wanted)
{
	if (atomic_fetch_add(&mismatches, 1) < 10)
		fprintf(stderr, "%s: byte %#llx is %#x, not %#x\n", what, (unsigned long long)at,
			got, wanted);
}

static bool can(unsigned what)
{
	return info.can & what;
}

static bool owns(const struct thread *t, uint64_t at)
{
	if (!t->striped)
		return at >= t->id * (uint64_t)AREA && at < (t->id + 1) * (uint64_t)AREA;
	return at < SHARED && at / STRIPE % options.threads == t->id;
}

/* ---- shapes ---- */

static uint64_t pick_len(struct thread *t)
{
	uint64_t *r = &t->random;

	switch (random_below(r, 12)) {
	case 0:
		return random_below(r, 3); /* nothing, too */
	case 1:
	case 2:
	case 3:
		return info.block * (1 + random_below(r, 6));
	case 4:
	case 5:
		return random_below(r, 60000);
	case 6:
		return random_below(r, MAX_LEN);
	default:
		return random_below(r, 3 * 4096);
	}
}

static void pick_range(struct thread *t, uint64_t *start, uint64_t *len)
{
	uint64_t *r = &t->random, end;

	if (t->striped) {
		*start = STRIPE *
			 (t->id +
			  options.threads * random_below(r, SHARED / STRIPE / options.threads));
		*len = STRIPE;
		if (random_below(r, 2)) {
			uint64_t skip = random_below(r, STRIPE);

			*start += skip;
			*len -= skip;
			*len = random_below(r, *len + 1);
		}
		return;
	}
	*len = pick_len(t);
	end = (t->id + 1) * (uint64_t)AREA;
	*start = t->id * (uint64_t)AREA + random_below(r, AREA);
	if (random_below(r, 3) == 0)
		*start -= *start % info.block;
	if (*len > end - *start)
		*len = end - *start;
}

static bool overlaps(const struct thread *t, uint64_t start, uint64_t len)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct ticket *other = t->slots[i].ticket;

		if (other && start < other->start + other->len && other->start < start + len)
			return true;
	}
	return false;
}

/* Cuts len bytes of the slot's memory into runs at odd places, empty ones among them, in an
 * order that isn't that of their addresses. */
static void shape(struct thread *t, struct slot *slot, uint64_t len)
{
	uint64_t *r = &t->random;
	int count = random_below(r, 5) ? 1 + random_below(r, MAX_IOV) : 1;
	uint8_t *at = slot->memory;
	bool aligned = random_below(r, 3) == 0;

	for (int i = 0; i < count; i++) {
		uint64_t part = i == count - 1 ? len : random_below(r, 2 + 2 * len / count);

		if (part > len)
			part = len;
		if (random_below(r, 6) == 0 && i < count - 1)
			part = 0;
		if (aligned && part < len)
			part -= part % 512;
		if (!aligned)
			at += random_below(r, GAP);
		slot->iov[i] = (struct iovec){ random_below(r, 8) || part ? at : NULL, part };
		at += part;
		len -= part;
	}
	for (int i = count - 1; i > 0; i--) {
		int j = random_below(r, i + 1);
		struct iovec iov = slot->iov[i];

		slot->iov[i] = slot->iov[j];
		slot->iov[j] = iov;
	}
	slot->iovcnt = count;
}

/* ---- the end of a request ---- */

static void forget(uint64_t start, uint64_t len)
{
	memset(known + start, 0, len);
}

static void check_byte(const struct thread *t, uint64_t at, uint8_t got)
{
	if (owns(t, at) && known[at] && got != model[at])
		mismatch(t->striped ? "among neighbours" : "in its own area", at, got, model[at]);
}

/* What was read, and that nothing else of the memory was written. */
static void check_read(struct thread *t, struct slot *slot, uint64_t start, bool right)
{
	static const uint8_t guard = GUARD;
	uint8_t *memory = slot->memory;
	uint8_t *touched = calloc(1, MEMORY);

	for (int i = 0; i < slot->iovcnt; i++) {
		uint8_t *base = slot->iov[i].iov_base;

		for (size_t j = 0; right && j < slot->iov[i].iov_len; j++)
			check_byte(t, start + j, base[j]);
		if (slot->iov[i].iov_len)
			memset(touched + (base - memory), 1, slot->iov[i].iov_len);
		start += slot->iov[i].iov_len;
	}
	for (size_t i = 0; i < MEMORY; i++)
		if (!touched[i] && memory[i] != guard)
			mismatch("memory beside what was asked for, at", i, memory[i], guard);
	free(touched);
}

static void settle(struct thread *t, struct ticket *ticket)
{
	struct slot *slot = ticket->slot;

	if (atomic_load(&ticket->completions) != 1)
		fail("a request was told of %u times", ticket->completions);
	if (ticket->error && !(options.errors && ticket->error == -EIO) &&
	    !(ticket->kind == ZERO && ticket->error == -EOPNOTSUPP))
		fail("request of kind %d, %llu bytes at %llu: %s", ticket->kind,
		     (unsigned long long)ticket->len, (unsigned long long)ticket->start,
		     strerror(-ticket->error));
	if (ticket->error)
		atomic_fetch_add(&failed, 1);
	if (ticket->kind == READ && !ticket->chained)
		check_read(t, slot, ticket->start, ticket->error == 0);
	else if (ticket->kind == EXTENTS && !ticket->error &&
		 ticket->extents_end != ticket->start + ticket->len)
		mismatch("the extents end at", ticket->extents_end, 0, 0);
	else if (ticket->error && (ticket->kind == WRITE || ticket->kind == ZERO))
		forget(ticket->start, ticket->len);
	slot->ticket = NULL;
	t->in_flight--;
}

static struct ticket *new_ticket(struct thread *t, struct slot *slot)
{
	struct ticket *ticket = &t->tickets[t->nr_tickets++];

	*ticket = (struct ticket){ .thread = t, .slot = slot };
	return ticket;
}

static void called_back(void *opaque, int error);

/* On the library's thread: reads back what was written, into memory of its own. */
static bool read_back(struct ticket *ticket)
{
	struct ticket *chained = ticket + 1; /* kept free for this */
	struct slot *slot = ticket->slot;
	const struct ndio_completion completion = { .queue = ticket->thread->queue,
						    .opaque = chained };
	struct iovec iov = { slot->memory, ticket->len };
	int ret;

	*chained = (struct ticket){ .thread = ticket->thread,
				    .slot = slot,
				    .kind = READ,
				    .start = ticket->start,
				    .len = ticket->len,
				    .chained = true };
	ret = ndio_aio_preadv(volume, &iov, 1, ticket->start, 0, &completion);
	memset(&iov, 0x5a, sizeof(iov));
	if (ret < 0)
		fail("read from a callback: %s", ndio_error());
	return true;
}

static void called_back(void *opaque, int error)
{
	struct ticket *ticket = opaque;
	struct thread *t = ticket->thread;
	const uint64_t one = 1;

	ticket->error = error;
	atomic_fetch_add(&ticket->completions, 1);
	if (ticket->read_back && !error && read_back(ticket))
		return;
	pthread_mutex_lock(&t->lock);
	ticket->next = t->called_back;
	t->called_back = ticket;
	pthread_mutex_unlock(&t->lock);
	if (write(t->eventfd, &one, sizeof(one)) < 0)
		fail("eventfd");
}

/* A read made by a callback has come: it is the slot's last, and checked by the model. */
static void settle_chained(struct thread *t, struct ticket *chained)
{
	if (!chained->error)
		for (uint64_t i = 0; i < chained->len; i++)
			check_byte(t, chained->start + i, chained->slot->memory[i]);
	settle(t, chained);
}

static void reap_queue(struct thread *t)
{
	struct ndio_event events[5];
	int n = ndio_queue_reap(t->queue, events, 1 + random_below(&t->random, 5), 0);

	if (n < 0)
		fail("reap: %s", ndio_error());
	for (int i = 0; i < n; i++) {
		struct ticket *ticket = events[i].opaque;

		ticket->error = events[i].error;
		atomic_fetch_add(&ticket->completions, 1);
		if (ticket->chained)
			settle_chained(t, ticket);
		else
			settle(t, ticket);
	}
}

static void reap_called_back(struct thread *t)
{
	struct ticket *list, *next;
	uint64_t count;

	if (read(t->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		fail("eventfd");
	pthread_mutex_lock(&t->lock);
	list = t->called_back;
	t->called_back = NULL;
	pthread_mutex_unlock(&t->lock);
	for (; list; list = next) {
		next = list->next;
		settle(t, list);
	}
}

static void stuck(struct thread *t)
{
	struct ndio_event event;

	fprintf(stderr, "nothing has completed for 60 seconds, %llu requests are in flight\n",
		(unsigned long long)stats_of(volume).in_flight);
	for (unsigned i = 0; i < DEPTH; i++) {
		const struct ticket *ticket = t->slots[i].ticket;

		if (ticket)
			fprintf(stderr, "in flight: kind %d, %llu bytes at %llu, told %u times\n",
				ticket->kind, (unsigned long long)ticket->len,
				(unsigned long long)ticket->start, ticket->completions);
	}
	if (ndio_queue_reap(t->queue, &event, 1, 0) > 0)
		fail("the queue's descriptor didn't tell of an event");
	exit(1);
}

static void reap(struct thread *t)
{
	struct pollfd fds[] = { { .fd = ndio_queue_fd(t->queue), .events = POLLIN },
				{ .fd = t->eventfd, .events = POLLIN } };

	if (!t->in_flight)
		return;
	if (poll(fds, 2, 60000) == 0)
		stuck(t);
	if (fds[0].revents)
		reap_queue(t);
	if (fds[1].revents)
		reap_called_back(t);
}

static void reap_all(struct thread *t)
{
	while (t->in_flight)
		reap(t);
}

/* ---- making requests ---- */

static int told_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	struct ticket *ticket = opaque;

	if (offset != ticket->extents_end || len == 0 || type & ~3u)
		mismatch("an extent starts at", offset, 0, 0);
	ticket->extents_end = offset + len;
	return 0;
}

static unsigned pick_flags(struct thread *t, enum kind kind)
{
	uint64_t *r = &t->random;
	unsigned flags = 0;

	if ((kind == WRITE || kind == ZERO || kind == TRIM) && can(NDIO_CAN_FUA) &&
	    random_below(r, 12) == 0)
		flags |= NDIO_FUA;
	if ((kind == READ || kind == WRITE) && random_below(r, 6) == 0)
		flags |= NDIO_PIN;
	if (kind == WRITE && random_below(r, 3) == 0)
		flags |= NDIO_COPY;
	if (kind == ZERO && random_below(r, 2))
		flags |= NDIO_MAY_TRIM;
	if (kind == ZERO && can(NDIO_CAN_FAST_ZERO) && random_below(r, 8) == 0)
		flags |= NDIO_FAST_ZERO;
	return flags;
}

static int start(struct ticket *ticket, unsigned flags, const struct ndio_completion *completion)
{
	struct slot *slot = ticket->slot;
	struct iovec *iov;
	int ret = 0, count = slot->iovcnt;

	/* The array is the library's no longer than the call: gone then. */
	iov = malloc((count + 1) * sizeof(*iov));
	memcpy(iov, slot->iov, count * sizeof(*iov));
	switch (ticket->kind) {
	case READ:
		ret = ndio_aio_preadv(volume, iov, count, ticket->start, flags, completion);
		break;
	case WRITE:
		ret = ndio_aio_pwritev(volume, iov, count, ticket->start, flags, completion);
		break;
	case ZERO:
		ret = ndio_aio_zero(volume, ticket->start, ticket->len, flags, completion);
		break;
	case TRIM:
		ret = ndio_aio_trim(volume, ticket->start, ticket->len, flags, completion);
		break;
	case FLUSH:
		ret = ndio_aio_flush(volume, completion);
		break;
	case CACHE:
		ret = ndio_aio_cache(volume, ticket->start, ticket->len, completion);
		break;
	case EXTENTS:
		ret = ndio_aio_extents(volume, ticket->start, ticket->len, told_extent, ticket,
				       completion);
		break;
	}
	memset(iov, 0x5a, count * sizeof(*iov));
	free(iov);
	return ret;
}

static void fill_memory(struct thread *t, struct slot *slot, struct ticket *ticket)
{
	uint64_t at = ticket->start;

	memset(slot->memory, GUARD, MEMORY);
	if (ticket->kind != WRITE)
		return;
	for (int i = 0; i < slot->iovcnt; i++) {
		uint8_t *base = slot->iov[i].iov_base;

		for (size_t j = 0; j < slot->iov[i].iov_len; j++, at++)
			model[at] = base[j] = random_next(&t->random) >> 32;
	}
}

static void update_model(const struct ticket *ticket)
{
	if (ticket->kind == ZERO)
		memset(model + ticket->start, 0, ticket->len);
	if (ticket->kind == WRITE || ticket->kind == ZERO)
		memset(known + ticket->start, 1, ticket->len);
	else if (ticket->kind == TRIM)
		forget(ticket->start, ticket->len);
}

static enum kind pick_kind(struct thread *t)
{
	unsigned dice = random_below(&t->random, 40);

	if (dice < 18)
		return WRITE;
	if (dice < 20)
		return ZERO;
	if (dice == 20 && can(NDIO_CAN_TRIM))
		return TRIM;
	if (dice == 21 && can(NDIO_CAN_FLUSH))
		return FLUSH;
	if (dice == 22 && can(NDIO_CAN_CACHE))
		return CACHE;
	if (dice == 23 && can(NDIO_CAN_EXTENTS))
		return EXTENTS;
	return READ;
}

static void make_request(struct thread *t, struct slot *slot)
{
	uint64_t *r = &t->random;
	struct ndio_completion completion = { 0 };
	struct ticket *ticket;
	enum kind kind = pick_kind(t);
	uint64_t from = 0, len = 0;
	unsigned flags;
	int ret;

	if (kind != FLUSH) {
		pick_range(t, &from, &len);
		if (t->striped && kind == READ && random_below(r, 2)) { /* neighbours' as well */
			uint64_t before = random_below(r, 1 + (from < 9000 ? from : 9000));

			from -= before;
			len += before + random_below(r, 9000);
			len = len > SHARED - from ? SHARED - from : len;
		}
		if (overlaps(t, from, len))
			return;
	}
	ticket = new_ticket(t, slot);
	ticket->kind = kind;
	ticket->start = ticket->extents_end = from;
	ticket->len = len;
	slot->iovcnt = 0;
	if (kind == READ || kind == WRITE)
		shape(t, slot, len);
	/* The runs are in another order than before: their lengths are what counts. */
	fill_memory(t, slot, ticket);
	update_model(ticket);
	flags = pick_flags(t, kind);
	if (random_below(r, 2)) {
		completion.queue = t->queue;
	} else {
		completion.callback = called_back;
		if (kind == WRITE && random_below(r, 4) == 0) {
			ticket->read_back = true;
			t->nr_tickets++;
		}
	}
	completion.opaque = ticket;
	slot->ticket = ticket;
	t->in_flight++;
	while ((ret = start(ticket, flags, &completion)) == -EAGAIN || ret == -ENOMEM) {
		atomic_fetch_add(&refused, 1);
		/* Too much is locked, or too much is copied. */
		flags &= ~(NDIO_PIN | NDIO_COPY);
	}
	if (ret < 0)
		fail("%s", ndio_error());
	if ((flags & NDIO_COPY) && !ticket->read_back)
		memset(slot->memory, 0xee, MEMORY);
	atomic_fetch_add(&made, 1);
}

static void blocking_requests(struct thread *t)
{
	uint8_t buf[700];
	struct iovec iov[2] = { { buf, 301 }, { buf + 301, 399 } };
	uint64_t at, len;

	pick_range(t, &at, &len);
	if (len < sizeof(buf) || overlaps(t, at, sizeof(buf)))
		return;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = model[at + i] = random_next(&t->random) >> 32;
	memset(known + at, 1, sizeof(buf));
	if (ndio_pwritev(volume, iov, 2, at, NDIO_COPY) != sizeof(buf) ||
	    ndio_preadv(volume, iov, 2, at, NDIO_PIN) != sizeof(buf)) {
		if (!options.errors)
			fail("%s", ndio_error());
		forget(at, sizeof(buf));
		return;
	}
	for (size_t i = 0; i < sizeof(buf); i++)
		check_byte(t, at + i, buf[i]);
}

static void *run_disjoint(void *opaque)
{
	struct thread *t = opaque;

	while (t->nr_tickets < options.requests && atomic_load(&mismatches) == 0) {
		struct slot *slot = &t->slots[random_below(&t->random, DEPTH)];

		if (!slot->ticket)
			make_request(t, slot);
		if (slot->ticket || random_below(&t->random, 4) == 0)
			reap(t);
		if (random_below(&t->random, 50) == 0)
			blocking_requests(t);
	}
	reap_all(t);
	return NULL;
}

/* ---- truly overlapping ---- */

#define WINDOW (40 * 1024)
#define RIVALS 6

/* Each byte is that of a rival that covered it, or, where none did, what it was. */
static void judge(struct thread *t, uint64_t window, const struct ticket *rivals[RIVALS])
{
	uint8_t *data = t->slots[RIVALS].memory;
	struct iovec iov = { data, WINDOW };

	if (ndio_preadv(volume, &iov, 1, window, 0) != WINDOW)
		fail("%s", ndio_error());
	for (uint64_t i = 0; i < WINDOW; i++) {
		uint64_t at = window + i;
		bool covered = false, explained = false;

		for (unsigned k = 0; k < RIVALS; k++) {
			if (at < rivals[k]->start || at >= rivals[k]->start + rivals[k]->len)
				continue;
			covered = true;
			explained |= data[i] == (rivals[k]->kind == ZERO ? 0 : k + 1);
		}
		if (covered ? !explained : known[at] && data[i] != model[at])
			mismatch(covered ? "no writer's" : "nobody wrote it", at, data[i],
				 model[at]);
		model[at] = data[i];
		known[at] = 1;
	}
}

static void *run_overlapping(void *opaque)
{
	struct thread *t = opaque;
	uint64_t *r = &t->random;

	while (t->nr_tickets < options.requests / 4 && atomic_load(&mismatches) == 0) {
		uint64_t window = t->id * (uint64_t)AREA + random_below(r, AREA - WINDOW);
		const struct ticket *rivals[RIVALS];

		for (unsigned k = 0; k < RIVALS; k++) {
			struct slot *slot = &t->slots[k];
			struct ticket *ticket = new_ticket(t, slot);
			const struct ndio_completion completion = { .queue = t->queue,
								    .opaque = ticket };
			uint64_t from = random_below(r, WINDOW), len = pick_len(t);

			ticket->kind = random_below(r, 6) ? WRITE : ZERO;
			ticket->start = window + from;
			ticket->len = len < WINDOW - from ? len : WINDOW - from;
			shape(t, slot, ticket->len);
			memset(slot->memory, k + 1, MEMORY);
			slot->ticket = ticket;
			rivals[k] = ticket;
			t->in_flight++;
			if (start(ticket, 0, &completion) < 0)
				fail("%s", ndio_error());
			atomic_fetch_add(&made, 1);
		}
		reap_all(t);
		judge(t, window, rivals);
	}
	return NULL;
}

/* ---- the whole ---- */

static void create_file(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file || fclose(file) != 0)
		fail("%s: can't be written", path);
}

static void run_all(const char *name, void *(*what)(void *), bool striped)
{
	unsigned long before = atomic_load(&made);

	for (unsigned i = 0; i < options.threads; i++) {
		struct thread *t = &threads[i];

		t->striped = striped;
		t->nr_tickets = 0;
		if (pthread_create(&t->thread, NULL, what, t) != 0)
			fail("can't make a thread");
	}
	for (unsigned i = 0; i < options.threads; i++)
		pthread_join(threads[i].thread, NULL);
	for (unsigned i = 0; i < options.threads; i++)
		for (unsigned long j = 0; j < threads[i].nr_tickets; j++)
			if (atomic_load(&threads[i].tickets[j].completions) > 1)
				fail("a request was told of twice");
	printf("%s: %lu requests, %lu failed, %u mismatches\n", name, atomic_load(&made) - before,
	       atomic_load(&failed), atomic_load(&mismatches));
}

static void check_all(void)
{
	uint8_t *data = malloc(size);
	struct iovec iov = { data, size };

	/* What was trimmed, or failed, is anyone's guess until it is written again. */
	for (uint64_t at = 0; at < size; at++)
		if (!known[at])
			model[at] = 0x77;
	for (uint64_t at = 0, end; at < size; at = end) {
		end = at + 1;
		if (known[at])
			continue;
		while (end < size && !known[end])
			end++;
		iov = (struct iovec){ model + at, end - at };
		if (ndio_pwritev(volume, &iov, 1, at, 0) < 0)
			fail("%s", ndio_error());
	}
	iov = (struct iovec){ data, size };
	if (ndio_preadv(volume, &iov, 1, 0, 0) != (ssize_t)size)
		fail("%s", ndio_error());
	for (uint64_t at = 0; at < size; at++)
		if (data[at] != model[at])
			mismatch("at the end", at, data[at], model[at]);
	free(data);
}

static void set_up(void)
{
	volume = open_volume(&options.opening);
	info = info_of(volume);
	size = options.threads * (uint64_t)AREA;
	if (info.size < size)
		fail("the volume is smaller than %llu bytes", (unsigned long long)size);
	model = calloc(1, size);
	known = calloc(1, size);
	for (unsigned i = 0; i < options.threads; i++) {
		struct thread *t = &threads[i];

		t->id = i;
		t->random = (options.seed * 1000 + i + 1) * 0x9e3779b97f4a7c15;
		t->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		t->tickets = calloc(options.requests + 2 * DEPTH, sizeof(*t->tickets));
		pthread_mutex_init(&t->lock, NULL);
		if (ndio_queue_new(&t->queue) < 0)
			fail("%s", ndio_error());
		for (unsigned j = 0; j < DEPTH; j++)
			t->slots[j].memory = malloc(MEMORY);
	}
}

static void tear_down(void)
{
	struct ndio_stats stats;
	double deadline = now() + 5;

	/* A request is freed a moment after its completion is told. */
	do
		stats = stats_of(volume);
	while (stats.in_flight && now() < deadline);
	if (stats.in_flight != 0 || stats.pins != stats.unpins)
		fail("at the end %llu are in flight, %llu of %llu are unpinned",
		     (unsigned long long)stats.in_flight, (unsigned long long)stats.unpins,
		     (unsigned long long)stats.pins);
	ndio_close(volume, NDIO_CLOSE_WAIT);
	for (unsigned i = 0; i < options.threads; i++) {
		struct thread *t = &threads[i];

		for (unsigned j = 0; j < DEPTH; j++)
			free(t->slots[j].memory);
		ndio_queue_free(t->queue);
		pthread_mutex_destroy(&t->lock);
		free(t->tickets);
		close(t->eventfd);
	}
}

static void write_model(void)
{
	FILE *file = fopen(options.model_path, "w");

	if (!file || fwrite(model, 1, size, file) != size || fclose(file) != 0)
		fail("%s: can't be written", options.model_path);
}

static void parse(int argc, char **argv)
{
	int opt;

	options.opening.copy_memory = 2 * 1024 * 1024;
	while ((opt = getopt(argc, argv, "k:T:c:dt:n:s:e:o:")) != -1) {
		switch (opt) {
		case 'k':
			options.opening.key_path = optarg;
			break;
		case 'T':
			options.opening.trust = optarg;
			break;
		case 'c':
			options.opening.connections = atoi(optarg);
			break;
		case 'd':
			options.opening.flags |= NDIO_OPEN_DISCARD;
			break;
		case 't':
			options.threads = atoi(optarg);
			break;
		case 'n':
			options.requests = atoi(optarg);
			break;
		case 's':
			options.seed = atoi(optarg);
			break;
		case 'e':
			options.errors = optarg;
			break;
		case 'o':
			options.model_path = optarg;
			break;
		default:
			fail("see the start of ndio-model.c");
		}
	}
	if (optind + 1 != argc || options.threads < 1 || options.threads > MAX_THREADS)
		fail("see the start of ndio-model.c");
	options.opening.locator = argv[optind];
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	set_up();
	if (options.errors)
		create_file(options.errors);
	run_all("areas", run_disjoint, false);
	run_all("stripes", run_disjoint, true);
	if (options.errors) {
		unlink(options.errors);
		if (atomic_load(&failed) == 0)
			fail("no request has failed");
	}
	run_all("overlapping", run_overlapping, false);
	check_all();
	if (options.model_path)
		write_model();
	tear_down();
	free(model);
	free(known);
	return atomic_load(&mismatches) > 0;
}
