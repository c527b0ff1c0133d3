#include "engine/bvec.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/align.h"

/* Aligned for direct I/O, and constant: a stray write into it must not end up on every disk. */
static const unsigned char zero_bytes[64 << 10] __attribute__((aligned(4096)));

int bvec_measure(const struct iovec *iov, size_t iov_count, size_t *bv_count, uint64_t *bytes)
{
	size_t kept = 0;
	uint64_t sum = 0;

	for (size_t i = 0; i < iov_count; i++) {
		if (iov[i].iov_len > INT64_MAX - sum)
			return -EINVAL;
		sum += iov[i].iov_len;
		kept += iov[i].iov_len > 0;
	}
	*bv_count = kept;
	*bytes = sum;
	return 0;
}

void bvec_snapshot(struct bvec *bv, const struct iovec *iov, size_t iov_count)
{
	for (size_t i = 0; i < iov_count; i++)
		if (iov[i].iov_len > 0)
			*bv++ = (struct bvec){ iov[i].iov_base, iov[i].iov_len };
}

struct iter iter_over(const struct bvec *bv, uint64_t bytes)
{
	return (struct iter){ .bv = bv, .left = bytes };
}

struct iter iter_of_zeroes(uint64_t bytes)
{
	return (struct iter){ .left = bytes, .zeroes = true };
}

struct bvec iter_run(const struct iter *it, size_t max)
{
	struct bvec run = { NULL, 0 };

	if (!it->left)
		return run;
	if (it->zeroes) {
		/* A bvec has no const kind; a reader of zeroes never writes. */
		run.base = (void *)zero_bytes;
		run.len = sizeof(zero_bytes);
	} else {
		assert(it->skip < it->bv->len);
		run.base = (char *)it->bv->base + it->skip;
		run.len = it->bv->len - it->skip;
	}
	run.len = min_u64(run.len, min_u64(max, it->left));
	return run;
}

void iter_advance(struct iter *it, uint64_t n)
{
	assert(n <= it->left);
	it->left -= n;
	if (it->zeroes)
		return;
	/* Stops before it looks at an entry that it has no byte of: the list may end there. */
	n += it->skip;
	while (n && n >= it->bv->len) {
		n -= it->bv->len;
		it->bv++;
	}
	it->skip = n;
}

void iter_copy_from(struct iter *it, void *buf, size_t n)
{
	unsigned char *to = buf;

	assert(n <= it->left);
	while (n) {
		struct bvec run = iter_run(it, n);

		memcpy(to, run.base, run.len);
		iter_advance(it, run.len);
		to += run.len;
		n -= run.len;
	}
}

void iter_copy_to(struct iter *it, const void *buf, size_t n)
{
	const unsigned char *from = buf;

	assert(n <= it->left && !it->zeroes);
	while (n) {
		struct bvec run = iter_run(it, n);

		memcpy(run.base, from, run.len);
		iter_advance(it, run.len);
		from += run.len;
		n -= run.len;
	}
}
