/* What each block may hold.
 *
 * A read returns a version from `floor` to `newest`: the last one that was acknowledged, or one that
 * is being written during the read; and none older than what a read before it has got. A version is
 * a stamp, or zeroes. All of a block is of one version, unless a write of it is in flight during the
 * read: disks promise no more. After a trim anything of this block may be read until the next write
 * is acknowledged; a write that failed may have come to pass or not, or may yet, but no more once
 * the next one is acknowledged.
 *
 * A flush that succeeds, or FUA, means that the version acknowledged when it was sent is `durable`:
 * that's what a disk must hold which nobody looks after any more. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "registers.h"

#define MAGIC      UINT64_C(0x3173726574736972)
#define MOST_SHOWN 20

struct block {
	uint64_t newest; /* version that was ever asked for */
	uint64_t acked, floor, durable;
	uint64_t last_zero, prev_zero; /* the newest versions that are zeroes, 0: none */
	uint64_t last_trim;            /* versions are numbered with the trims */
	double acked_at;
	bool writing; /* a write, zero or trim is in flight */
	bool loose;   /* trimmed, and not written since */
};

/* The state file, or memory. */
static struct state {
	uint64_t magic, run, blocks, block_size, start;
	struct block block[];
} * state;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t violations, mixed;
static bool sync_failed; /* so no success of a flush means anything any more */

/* What was found in a block. */
struct found {
	unsigned stamps, zeroes, bad;
	uint64_t low, high; /* of the stamps */
	enum content worst; /* of the bad */
	struct stamp stamp; /* to be shown */
	unsigned sector;
};

/* ---- the state ---- */

static void map_state(int fd, size_t len, int flags)
{
	state = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (state == MAP_FAILED)
		fail("registers: no memory for the state: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

void model_create(uint64_t blocks)
{
	size_t len = sizeof(*state) + blocks * sizeof(state->block[0]);
	struct timespec ts;
	int fd = -1;

	if (options.state_path) {
		fd = open(options.state_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, len) < 0)
			fail("registers: %s: %s", options.state_path, strerror(errno));
	}
	map_state(fd, len, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	clock_gettime(CLOCK_REALTIME, &ts);
	state->run = (uint64_t)ts.tv_sec << 32 ^ (uint64_t)ts.tv_nsec << 2 ^ getpid();
	state->blocks = blocks;
	state->block_size = options.block;
	state->start = options.start;
	state->magic = MAGIC;
}

void model_open(void)
{
	int fd = open(options.state_path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		fail("registers: %s: %s", options.state_path, strerror(errno));
	if ((size_t)st.st_size < sizeof(*state))
		fail("registers: %s: no state", options.state_path);
	map_state(fd, st.st_size, MAP_PRIVATE);
	if (state->magic != MAGIC ||
	    (st.st_size - sizeof(*state)) / sizeof(state->block[0]) != state->blocks)
		fail("registers: %s: no state", options.state_path);
	options.block = state->block_size;
	options.start = state->start;
	for (uint64_t i = 0; i < state->blocks; i++) {
		struct block *block = &state->block[i];

		block->writing = false;
		block->loose |= block->durable == 0;
		block->floor = block->acked = block->durable;
	}
}

uint64_t model_blocks(void)
{
	return state->blocks;
}

uint64_t model_run(void)
{
	return state->run;
}

uint64_t model_violations(void)
{
	return violations;
}

uint64_t model_mixed(void)
{
	return mixed;
}

/* ---- before ---- */

static void begin_read(struct slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++) {
		const struct block *block = &state->block[slot->first + i];

		slot->version[i] = block->floor;
		slot->newest[i] = block->newest;
		slot->doubt[i] = block->newest > block->acked;
		slot->loose[i] = block->loose;
	}
}

static void begin_change(struct slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++) {
		struct block *block = &state->block[slot->first + i];

		block->writing = true;
		slot->version[i] = ++block->newest;
		if (slot->kind == ZERO) {
			block->prev_zero = block->last_zero;
			block->last_zero = block->newest;
		} else if (slot->kind == TRIM) {
			block->loose = true;
			block->last_trim = block->newest;
			block->floor = block->acked = block->durable = 0;
		}
	}
}

static bool is_free(const struct slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++)
		if (state->block[slot->first + i].writing)
			return false;
	return true;
}

bool model_begin(struct slot *slot)
{
	bool began = true;

	pthread_mutex_lock(&mutex);
	if (slot->kind == FLUSH)
		for (uint64_t i = 0; i < state->blocks; i++)
			slot->acked[i] = state->block[i].acked;
	else if (slot->kind == READ)
		begin_read(slot);
	else if ((began = is_free(slot)))
		begin_change(slot);
	pthread_mutex_unlock(&mutex);
	return began;
}

/* ---- what a read got ---- */

static void look_at(const uint8_t *data, uint64_t number, struct found *found)
{
	*found = (struct found){ .low = UINT64_MAX };
	for (unsigned s = 0; s < options.block / SECTOR; s++) {
		struct stamp stamp;
		enum content content = stamp_read(data + s * SECTOR, state->run, number, s, &stamp);

		if (content == CONTENT_ZEROES) {
			found->zeroes++;
			continue;
		}
		if (content == CONTENT_STAMP) {
			found->stamps++;
			if (stamp.version < found->low && !found->bad) {
				found->stamp = stamp;
				found->sector = s;
			}
			found->low = stamp.version < found->low ? stamp.version : found->low;
			found->high = stamp.version > found->high ? stamp.version : found->high;
			continue;
		}
		if (!found->bad || content == CONTENT_FOREIGN) {
			found->worst = content;
			found->stamp = stamp;
			found->sector = s;
		}
		found->bad++;
	}
}

static void show_found(const struct found *found, char *text, size_t size)
{
	static const char *const names[] = { "", "", "foreign", "torn", "garbage" };
	const struct stamp *s = &found->stamp;
	int len = 0;

	if (found->bad)
		len = snprintf(text, size, "%s in sector %u of %u", names[found->worst],
			       found->sector, found->bad);
	if (found->bad && found->worst != CONTENT_GARBAGE)
		len += snprintf(text + len, size - len, " (block %llu, version %llu%s)",
				(unsigned long long)s->block, (unsigned long long)s->version,
				s->run == state->run ? "" : ", another run's");
	if (found->stamps)
		len += snprintf(text + len, size - len, "%sversion %llu..%llu by %u in %u sectors",
				len ? ", " : "", (unsigned long long)found->low,
				(unsigned long long)found->high, s->writer, found->stamps);
	if (found->zeroes)
		snprintf(text + len, size - len, "%szeroes in %u sectors", len ? ", " : "",
			 found->zeroes);
}

static void violation(const char *what, uint64_t number, uint64_t floor, const struct found *found,
		      double begun)
{
	const struct block *block = &state->block[number];
	char text[300];

	if (++violations > MOST_SHOWN)
		return;
	show_found(found, text, sizeof(text));
	printf("violation=%s block=%llu expected=version %llu..%llu%s (last zeroes %llu) found=%s; "
	       "acknowledged %llu at %.3f, read from %.3f to %.3f\n",
	       what, (unsigned long long)number, (unsigned long long)floor,
	       (unsigned long long)block->newest, block->loose ? " or trimmed" : "",
	       (unsigned long long)block->last_zero, text, (unsigned long long)block->acked,
	       block->acked_at, begun, now());
	fflush(stdout);
}

/* A read of a block, of which this version may be returned at least; doubt: a write may have been
 * under way. */
static void judge(uint64_t number, const struct found *found, uint64_t floor, bool doubt,
		  bool loose, double begun)
{
	const struct block *block = &state->block[number];
	bool one = !found->bad && (!found->stamps || (!found->zeroes && found->low == found->high));

	if (found->bad && found->worst == CONTENT_FOREIGN)
		violation("foreign", number, floor, found, begun);
	else if (found->stamps && found->high > block->newest)
		violation("future", number, floor, found, begun);
	else if (loose)
		return;
	else if (!one && !doubt)
		violation("torn", number, floor, found, begun);
	else if (found->stamps && found->low < floor)
		violation("stale", number, floor, found, begun);
	else if (found->zeroes && (block->last_zero < floor || !block->last_zero))
		violation("zeroes", number, floor, found, begun);
	else if (!one)
		mixed++;
}

/* What was read can't be unread: of zeroes only if it is clear which, of all that might have been
 * returned. */
static void raise_floor(struct block *block, const struct found *found, uint64_t floor)
{
	uint64_t version = 0;

	if (found->bad || block->loose)
		return;
	if (!found->zeroes)
		version = found->low;
	else if (!found->stamps && block->prev_zero < floor)
		version = block->last_zero;
	if (version > block->floor &&
	    (version <= block->acked || (block->writing && version == block->newest)))
		block->floor = version;
}

static void end_read(struct slot *slot, const struct found *found)
{
	for (unsigned i = 0; i < slot->count; i++) {
		struct block *block = &state->block[slot->first + i];
		uint64_t floor = slot->version[i];
		bool doubt = slot->doubt[i] || block->newest > slot->newest[i] ||
			     block->newest > block->acked;
		bool loose = slot->loose[i] || block->last_trim > slot->newest[i];

		if (block->floor < floor)
			floor = block->floor; /* a write that it had seen has failed */
		judge(slot->first + i, &found[i], floor, doubt, loose, slot->begun);
		raise_floor(block, &found[i], floor);
	}
}

/* ---- after ---- */

static void end_change(struct slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++) {
		struct block *block = &state->block[slot->first + i];

		block->writing = false;
		if (slot->error && block->floor > block->acked)
			block->floor = block->acked;
		if (slot->error || slot->kind == TRIM)
			continue;
		block->loose = false;
		block->acked = block->floor = slot->version[i];
		block->acked_at = now();
		if (slot->fua && !sync_failed)
			block->durable = slot->version[i];
	}
}

static void end_flush(const struct slot *slot)
{
	for (uint64_t i = 0; i < state->blocks && !slot->error && !sync_failed; i++) {
		struct block *block = &state->block[i];

		/* A trim since then has reset it. */
		if (slot->acked[i] > block->durable && slot->acked[i] <= block->acked)
			block->durable = slot->acked[i];
	}
}

void model_end(struct slot *slot)
{
	struct found found[MAX_BLOCKS];

	for (unsigned i = 0; slot->kind == READ && !slot->error && i < slot->count; i++)
		look_at(slot->data + i * options.block, slot->first + i, &found[i]);
	pthread_mutex_lock(&mutex);
	if (slot->kind == READ && !slot->error)
		end_read(slot, found);
	else if (slot->kind == FLUSH)
		end_flush(slot);
	else if (slot->kind != READ)
		end_change(slot);
	if (slot->error && (slot->kind == FLUSH || slot->fua))
		sync_failed = true;
	pthread_mutex_unlock(&mutex);
}
