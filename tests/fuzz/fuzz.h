/* fuzz: what the fuzzers share. */
#ifndef NDIO_TESTS_FUZZ_H
#define NDIO_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define fuzz_check(condition) ((condition) ? (void)0 : abort())

/* Memory that ends where the bytes end, so that reading on is seen. To be freed. */
static inline uint8_t *fuzz_copy(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	fuzz_check(copy);
	memcpy(copy, bytes, len);
	return copy;
}

/* The same, as a string. */
static inline char *fuzz_string(const uint8_t *bytes, size_t len)
{
	char *text = malloc(len + 1);

	fuzz_check(text);
	memcpy(text, bytes, len);
	text[len] = '\0';
	return text;
}

/* Bytes out of which choices are made, in order. */
struct fuzz_input {
	const uint8_t *bytes;
	size_t len;
};

/* The next choice, of so many up to 65536; 0 behind the last. */
static inline unsigned fuzz_take(struct fuzz_input *input, unsigned below)
{
	unsigned value;

	if (input->len < 2)
		return 0;
	value = input->bytes[0] | input->bytes[1] << 8;
	input->bytes += 2;
	input->len -= 2;
	return value % below;
}

#endif
