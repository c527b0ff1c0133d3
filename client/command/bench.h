/* bench: how fast is a volume, for one pattern of requests; and how fast its cipher, without a disk. */
#ifndef NDIO_BENCH_H
#define NDIO_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "library/ndio.h"

struct bench_pattern {
	const char *name;
	bool random, write;
	uint32_t block; /* bytes of a request */
	unsigned depth; /* requests at once, at most BENCH_DEPTH */
};
#define BENCH_DEPTH 64

struct bench_result {
	double seconds;
	uint64_t requests;
	uint64_t mean_ns, worst_ns; /* that a request took */
};

/* Makes requests for so many ms. A write writes noise. size is the volume's, at least a block. 0, or a
 * negative errno with a message. Main thread only. */
int bench_volume(struct ndio_volume *volume, const char *name, uint64_t size,
		 const struct bench_pattern *pattern, unsigned ms, struct bench_result *result,
		 struct error *err);

/* Decrypts in memory, on so many threads at once. bytes a second in all. */
int bench_cipher(const char *cipher, unsigned key_bits, unsigned sector, unsigned threads,
		 unsigned ms, double *per_second, struct error *err);

#endif
