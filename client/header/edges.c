#include "header/edges.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/align.h"
#include "base/file-limit.h"

#define EDGE     (UINT64_C(1) << 20) /* what is looked at, at either end */
#define HAVE_MAX 64                  /* bytes that are compared */
#define STEP     "looking what is there"

/* A multiple of EDGE less than the volume, so that what is aligned there is aligned here. */
static uint64_t shortened_len(uint64_t size)
{
	return size < 2 * EDGE ? size : 2 * EDGE + size % EDGE;
}

static int edges_make_file(struct edges *edges, const char *name, struct error *err)
{
	uint64_t limit = file_limit();

	if (edges->len > limit)
		edges->len = shortened_len(edges->size);
	if (edges->len > limit)
		return error_set(err, EFBIG, "%s: " STEP ": " FILE_LIMIT_LOW, name);
	edges->fd = memfd_create("ndio-edges", MFD_CLOEXEC);
	if (edges->fd < 0 || ftruncate(edges->fd, edges->len) < 0)
		return error_set(err, errno, "%s: " STEP ": %s", name, strerror(errno));
	return 0;
}

/* Copies one end into the memfd. */
static int copy_edge(struct edges *edges, struct header *header, uint64_t at, struct error *err)
{
	uint64_t len = min_u64(EDGE, edges->len - at);
	uint8_t *edge = malloc(len + 1);
	int ret;

	if (!edge)
		return error_set(err, ENOMEM, "%s: no memory", header->name);
	ret = header_read_bytes(header, edge, len, edges_offset(edges, at), STEP, err);
	if (ret == 0 && !is_zero(edge, len)) {
		edges->used = true;
		if (pwrite(edges->fd, edge, len, at) != (ssize_t)len)
			ret = error_set(err, EIO, "%s: " STEP ": %s", header->name,
					strerror(errno));
	}
	OPENSSL_cleanse(edge, len); /* it may be plaintext */
	free(edge);
	return ret;
}

int edges_read(struct edges *edges, struct header *header, struct error *err)
{
	int ret;

	*edges = (struct edges){ .size = header->size, .len = header->size, .fd = -1 };
	ret = edges_make_file(edges, header->name, err);
	if (ret == 0)
		ret = copy_edge(edges, header, 0, err);
	if (ret == 0 && edges->len > EDGE)
		ret = copy_edge(edges, header, edges->len - EDGE, err);
	return ret;
}

void edges_close(struct edges *edges)
{
	if (edges->fd >= 0)
		close(edges->fd);
	edges->fd = -1;
}

bool edges_shortened(const struct edges *edges)
{
	return edges->len < edges->size;
}

uint64_t edges_offset(const struct edges *edges, uint64_t at)
{
	return at < EDGE ? at : at + (edges->size - edges->len);
}

bool edges_have(const struct edges *edges, const void *bytes, size_t len, uint64_t offset)
{
	uint8_t there[HAVE_MAX];

	if (offset >= EDGE)
		offset -= edges->size - edges->len;
	return len <= sizeof(there) && pread(edges->fd, there, len, offset) == (ssize_t)len &&
	       memcmp(there, bytes, len) == 0;
}
