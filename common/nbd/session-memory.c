/* Records come and go in about the same order: a log is released from its oldest on, but what one
 * connection took first another may have had acknowledged first. So one that is given back is only
 * marked, and the tail moves over those that are. One that stays while all behind it are given back
 * may leave no room in one piece: then there is none, until a flush has released that, too. */
#include "nbd/session-memory.h"

#include <errno.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/align.h"

#define UNIT       64    /* bytes that all sizes and places are multiples of */
#define STREAM_MIN 16384 /* bytes: shorter ones may well stay in the caches */

/* Before each record; or alone, over what is left at the ring's end. */
struct space {
	size_t len; /* bytes, with this */
	bool is_free;
	struct session_record record;
};

#define HEAD round_up(sizeof(struct space), UNIT)

_Static_assert(sizeof(struct space) + UNIT <= SESSION_OVERHEAD, "what a record costs is counted");

static struct space *space_of(struct session_record *record)
{
	return (struct space *)((uint8_t *)record - offsetof(struct space, record));
}

int session_memory_init(struct session_memory *memory, uint64_t bytes, uint64_t max_len, bool ready,
			struct error *err)
{
	size_t size = round_up(bytes + max_len, UNIT);
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return error_set(err, errno, "no memory for what isn't flushed: %s",
				 strerror(errno));
	madvise(base, size, MADV_DONTDUMP);
	madvise(base, size, MADV_HUGEPAGE); /* 1.3 times as fast to write */
	if (ready)
		memset(base, 0, size);
	*memory = (struct session_memory){ .base = base, .size = size };
	return 0;
}

void session_memory_destroy(struct session_memory *memory)
{
	if (memory->base)
		munmap(memory->base, memory->size);
	*memory = (struct session_memory){ 0 };
}

static struct space *at(const struct session_memory *memory, size_t place)
{
	return (struct space *)(memory->base + place);
}

/* Bytes at head that can be used in one piece. It isn't full. */
static size_t memory_room(const struct session_memory *memory)
{
	return memory->head >= memory->tail ? memory->size - memory->head :
					      memory->tail - memory->head;
}

static void memory_take(struct session_memory *memory, size_t len, bool is_free)
{
	struct space *space = at(memory, memory->head);

	space->len = len;
	space->is_free = is_free;
	memory->used += len;
	memory->head += len;
	if (memory->head == memory->size)
		memory->head = 0;
}

static struct space *memory_take_piece(struct session_memory *memory, size_t len)
{
	struct space *space;

	if (memory->used == memory->size)
		return NULL;
	if (memory->used == 0)
		memory->head = memory->tail = 0; /* the same, warm memory again */
	if (memory_room(memory) < len && memory->head >= memory->tail && len <= memory->tail)
		memory_take(memory, memory_room(memory), true);
	if (memory_room(memory) < len)
		return NULL;
	space = at(memory, memory->head);
	memory_take(memory, len, false);
	return space;
}

struct session_record *session_memory_take(struct session_memory *memory, uint64_t len)
{
	size_t whole = HEAD + round_up(len, UNIT);
	struct space *space = memory_take_piece(memory, whole);

	if (!space)
		return NULL;
	memset(&space->record, 0, sizeof(space->record));
	space->record.op.data = (uint8_t *)space + HEAD;
	return &space->record;
}

/* What isn't read again, but for the server's end, needn't push anything out of the caches, nor be read
 * into them to be written: twice as fast. to is aligned to UNIT. */
#ifdef __SSE2__
static size_t copy_past_caches(void *to, const void *from, size_t len)
{
	size_t whole = len < STREAM_MIN ? 0 : round_down(len, UNIT);

	for (size_t at = 0; at < whole; at += sizeof(__m128i)) {
		const __m128i *source = (const __m128i *)((const uint8_t *)from + at);

		_mm_stream_si128((__m128i *)((uint8_t *)to + at), _mm_loadu_si128(source));
	}
	_mm_sfence();
	return whole;
}
#else
static size_t copy_past_caches(void *to, const void *from, size_t len)
{
	return 0;
}
#endif

void session_memory_fill(struct session_record *record, const void *data, size_t len)
{
	uint8_t *to = record->op.data;
	size_t done = copy_past_caches(to, data, len);

	memcpy(to + done, (const uint8_t *)data + done, len - done);
}

void session_memory_give(struct session_memory *memory, struct session_record *record)
{
	struct space *space = space_of(record);

	space->is_free = true;
	while (memory->used > 0 && (space = at(memory, memory->tail))->is_free) {
		memory->used -= space->len;
		memory->tail += space->len;
		if (memory->tail == memory->size)
			memory->tail = 0;
	}
}
