/* bvec: runs of memory, and iter: a position in a list of them. */
#ifndef NDIO_BVEC_H
#define NDIO_BVEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct bvec {
	void *base;
	size_t len; /* bytes; never 0 inside a list that bvec_snapshot made */
};

/* A position in a bvec list. A plain value: copy it to remember a place. It doesn't own the
 * list, which must outlive it. */
struct iter {
	const struct bvec *bv; /* the entry that the position is in */
	size_t skip;           /* bytes of it that are behind the position */
	uint64_t left;         /* bytes from the position to the end */
	bool zeroes;           /* endless zero bytes instead of a list: bv is unused */
};

/* Counts the entries that a snapshot of iov keeps (the empty ones are left out) and the bytes
 * that they hold. -EINVAL when the bytes overflow 63 bits. */
int bvec_measure(const struct iovec *iov, size_t iov_count, size_t *bv_count, uint64_t *bytes);

/* Copies the array, not the memory it describes, into bv, which has room for what
 * bvec_measure counted. Afterwards the iovec array may be reused or freed. */
void bvec_snapshot(struct bvec *bv, const struct iovec *iov, size_t iov_count);

/* An iter over bytes bytes of a list, from its start; or over that many zero bytes, which may
 * only be read. */
struct iter iter_over(const struct bvec *bv, uint64_t bytes);
struct iter iter_of_zeroes(uint64_t bytes);

/* The contiguous run at the position, no longer than max and than what is left; its length is
 * 0 only at the end. Doesn't move. */
struct bvec iter_run(const struct iter *it, size_t max);

/* Moves n bytes on; n is at most it->left. */
void iter_advance(struct iter *it, uint64_t n);

/* Copy n bytes between the position and buf, and move on. n is at most it->left. */
void iter_copy_from(struct iter *it, void *buf, size_t n);
void iter_copy_to(struct iter *it, const void *buf, size_t n);

#endif
