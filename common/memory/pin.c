#include "memory/pin.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/mapping.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Whole pages. No other segment has any of them. */
struct segment {
	uintptr_t start;
	uintptr_t end;
	size_t count; /* pins over each of the pages */
	bool foreign; /* someone else had locked them before the first pin */
};

/* Pinned for the long term. */
struct region {
	struct region *next;
	uintptr_t base;
	size_t len;
	bool shared; /* see mapping.h */
};

static struct {
	pthread_mutex_t mutex;
	struct region *regions;
	struct segment *seg; /* in order of address */
	size_t nr;
	size_t capacity;
	size_t live;     /* ranges that are counted in the segments */
	bool all_locked; /* see pin_all_is_locked() */
	struct pin_stats stats;
} table = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static uintptr_t page_size(void)
{
	return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* The pages that a range touches. False if it runs over the end of the address space. */
static bool pages_of(const void *base, size_t len, uintptr_t *start, uintptr_t *end)
{
	uintptr_t mask = page_size() - 1;

	if (__builtin_add_overflow((uintptr_t)base, len, end) ||
	    __builtin_add_overflow(*end, mask, end))
		return false;
	*start = (uintptr_t)base & ~mask;
	*end &= ~mask;
	return true;
}

/* Is any page of it locked? On Linux, MS_INVALIDATE does nothing but answer that, with EBUSY
 * as POSIX has it: no page is looked at, and /proc isn't needed. */
static bool is_locked(uintptr_t start, uintptr_t end)
{
	return syscall(SYS_msync, start, end - start, MS_ASYNC | MS_INVALIDATE) < 0 &&
	       errno == EBUSY;
}

/* Where the pages from start stop being alike, all locked or all not. */
static uintptr_t alike_until(uintptr_t start, uintptr_t end, bool *locked)
{
	uintptr_t page = page_size();
	uintptr_t at = start + page;

	*locked = table.all_locked || is_locked(start, end);
	if (!*locked || table.all_locked)
		return end;
	*locked = is_locked(start, at);
	while (at < end && is_locked(at, at + page) == *locked)
		at += page;
	return at;
}

/* Locks and faults in. Pages that someone else locked may be over a limit that was lowered
 * since, which mlock holds against us: those only need the faults. */
static int make_resident(uintptr_t start, uintptr_t end, bool foreign)
{
	int err;

	if (!syscall(SYS_mlock, start, end - start))
		return 0;
	err = -errno;
	if (foreign && !syscall(SYS_madvise, start, end - start, MADV_POPULATE_READ))
		return 0;
	return err;
}

/* Undoing a pin may split a segment at both ends of it, and can't fail: room for that is kept
 * for every live pin, on top of what is asked for. */
static bool table_reserve(size_t more)
{
	size_t need = table.nr + more + 2 * table.live;
	size_t capacity = table.capacity ? table.capacity : 32;
	struct segment *seg;

	if (need <= table.capacity)
		return true;
	while (capacity < need)
		capacity *= 2;
	seg = reallocarray(table.seg, capacity, sizeof(*seg));
	if (!seg)
		return false;
	table.seg = seg;
	table.capacity = capacity;
	return true;
}

/* The first segment that ends after the address. */
static size_t table_find(uintptr_t at)
{
	size_t low = 0, high = table.nr;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (table.seg[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void table_insert(size_t i, struct segment seg)
{
	assert(table.nr < table.capacity);
	memmove(&table.seg[i + 1], &table.seg[i], (table.nr - i) * sizeof(seg));
	table.seg[i] = seg;
	table.nr++;
}

/* Makes no segment lie across the address. The first one that starts there or later. */
static size_t table_cut(uintptr_t at)
{
	size_t i = table_find(at);

	if (i < table.nr && table.seg[i].start < at) {
		table_insert(i + 1, table.seg[i]);
		table.seg[i].end = at;
		table.seg[++i].start = at;
	}
	return i;
}

/* Joins what a change in the range has made alike, and drops what nobody pins. */
static void table_tidy(uintptr_t start, uintptr_t end)
{
	size_t i = table_find(start);
	size_t kept;

	if (i)
		i--;
	for (kept = i; i < table.nr && table.seg[i].start <= end; i++) {
		struct segment *seg = &table.seg[i];
		struct segment *prev = kept ? &table.seg[kept - 1] : NULL;

		if (!seg->count)
			continue;
		if (prev && prev->end == seg->start && prev->count == seg->count &&
		    prev->foreign == seg->foreign)
			prev->end = seg->end;
		else
			table.seg[kept++] = *seg;
	}
	if (kept < i) {
		memmove(&table.seg[kept], &table.seg[i], (table.nr - i) * sizeof(*table.seg));
		table.nr -= i - kept;
	}
	if (!table.nr) {
		free(table.seg);
		table.seg = NULL;
		table.capacity = 0;
	}
}

/* Makes segments that cover exactly the range, with a count of 0 where there were none. */
static int table_cover(uintptr_t start, uintptr_t end)
{
	size_t i;

	if (!table_reserve(2))
		return -ENOMEM;
	table_cut(end);
	for (i = table_cut(start); start < end; start = table.seg[i++].end) {
		struct segment gap = { .start = start, .end = end };

		if (i < table.nr && table.seg[i].start < end)
			gap.end = table.seg[i].start;
		if (gap.start == gap.end)
			continue;
		if (!table_reserve(1))
			return -ENOMEM;
		gap.end = alike_until(gap.start, gap.end, &gap.foreign);
		table_insert(i, gap);
	}
	return 0;
}

/* Counts a pin. *foreign: everything in the range was locked by someone else. */
static int table_count(uintptr_t start, uintptr_t end, bool *foreign)
{
	size_t i;
	int err;

	table.live++;
	err = table_cover(start, end);
	if (err) {
		table.live--;
		table_tidy(start, end);
		return err;
	}
	*foreign = true;
	for (i = table_find(start); i < table.nr && table.seg[i].start < end; i++) {
		table.seg[i].count++;
		*foreign = *foreign && table.seg[i].foreign;
	}
	table_tidy(start, end);
	return 0;
}

/* Takes a pin back, and unlocks what it was the last pin of. munlock stops at a hole as mlock
 * does, so a pin that failed at one is undone as far as it went. */
static void table_uncount(uintptr_t start, uintptr_t end)
{
	uintptr_t at;
	size_t i;

	assert(table.live);
	table_cut(end);
	i = table_cut(start);
	for (at = start; at < end; at = table.seg[i++].end) {
		struct segment *seg = &table.seg[i];

		assert(i < table.nr && seg->start == at && seg->count);
		if (!--seg->count && !seg->foreign)
			syscall(SYS_munlock, seg->start, seg->end - seg->start);
	}
	table.live--;
	table_tidy(start, end);
}

/* Counted first and locked after that, without the mutex: the faults may wait for a disk, and
 * the thread that serves that disk may want to unpin. Once counted, nobody unlocks it. */
int pin_range(const void *base, size_t len)
{
	uintptr_t start, end;
	bool counted, foreign;
	int err = -ENOMEM;

	if (!len)
		return 0;
	pthread_mutex_lock(&table.mutex);
	if (pages_of(base, len, &start, &end))
		err = table_count(start, end, &foreign);
	counted = !err;
	table.stats.pinned += counted;
	table.stats.failed += !counted;
	pthread_mutex_unlock(&table.mutex);
	if (counted)
		err = make_resident(start, end, foreign);
	if (counted && err) {
		pthread_mutex_lock(&table.mutex);
		table_uncount(start, end);
		table.stats.pinned--;
		table.stats.failed++;
		pthread_mutex_unlock(&table.mutex);
	}
	return err;
}

void unpin_range(const void *base, size_t len)
{
	uintptr_t start, end;
	bool valid;

	if (!len)
		return;
	valid = pages_of(base, len, &start, &end);
	assert(valid);
	pthread_mutex_lock(&table.mutex);
	table_uncount(start, end);
	table.stats.unpinned++;
	pthread_mutex_unlock(&table.mutex);
}

int pin_register(const void *base, size_t len)
{
	struct region *region = malloc(sizeof(*region));
	int err;

	if (!region)
		return -ENOMEM;
	err = pin_range(base, len);
	if (err) {
		free(region);
		return err;
	}
	region->base = (uintptr_t)base;
	region->len = len;
	region->shared = mapping_is_shared(&(struct iovec){ (void *)(uintptr_t)base, len }, 1);
	pthread_mutex_lock(&table.mutex);
	region->next = table.regions;
	table.regions = region;
	pthread_mutex_unlock(&table.mutex);
	return 0;
}

int pin_unregister(const void *base, size_t len)
{
	struct region **link, *region;

	pthread_mutex_lock(&table.mutex);
	for (link = &table.regions; (region = *link); link = &region->next) {
		if (region->base == (uintptr_t)base && region->len == len) {
			*link = region->next;
			break;
		}
	}
	pthread_mutex_unlock(&table.mutex);
	if (!region)
		return -ENOENT;
	free(region);
	unpin_range(base, len);
	return 0;
}

static const struct region *region_of(const void *base, size_t len)
{
	uintptr_t at = (uintptr_t)base;

	for (const struct region *region = table.regions; region; region = region->next)
		if (at >= region->base && at - region->base <= region->len &&
		    len <= region->len - (at - region->base))
			return region;
	return NULL;
}

bool pin_is_registered(const void *base, size_t len)
{
	bool found;

	pthread_mutex_lock(&table.mutex);
	found = region_of(base, len);
	pthread_mutex_unlock(&table.mutex);
	return found;
}

bool pin_is_shared(const void *base, size_t len)
{
	const struct region *region;
	bool shared;

	pthread_mutex_lock(&table.mutex);
	region = region_of(base, len);
	shared = !region || region->shared;
	pthread_mutex_unlock(&table.mutex);
	return shared;
}

void pin_all_is_locked(void)
{
	pthread_mutex_lock(&table.mutex);
	table.all_locked = true;
	pthread_mutex_unlock(&table.mutex);
}

bool pin_has_room(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool has;

	if (memory == MAP_FAILED)
		return false;
	has = mlock2(memory, len, MLOCK_ONFAULT) == 0;
	munmap(memory, len);
	return has;
}

int pin_after_fork(void)
{
	size_t i;
	int err = 0;

	pthread_mutex_lock(&table.mutex);
	table.all_locked = false;
	for (i = 0; i < table.nr && !err; i++) {
		struct segment *seg = &table.seg[i];

		/* The other's lock is gone as well, unless it was set again before this. */
		seg->foreign = seg->foreign && is_locked(seg->start, seg->end);
		err = make_resident(seg->start, seg->end, seg->foreign);
	}
	pthread_mutex_unlock(&table.mutex);
	return err;
}

void pin_stats(struct pin_stats *stats)
{
	size_t i;

	pthread_mutex_lock(&table.mutex);
	*stats = table.stats;
	stats->pages = 0;
	for (i = 0; i < table.nr; i++)
		stats->pages += (table.seg[i].end - table.seg[i].start) / page_size();
	pthread_mutex_unlock(&table.mutex);
}
