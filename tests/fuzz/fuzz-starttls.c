/* What a stranger may send before TLS: the greeting and the replies to STARTTLS. The first byte
 * says how the rest is cut into pieces, and it must not matter. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "nbd/starttls.h"

struct outcome {
	bool asked; /* for TLS */
	int ret;    /* the last one */
	struct error err;
};

/* Feeds pieces of so many bytes; what isn't fed any more is left out. */
static struct outcome feed(const uint8_t *bytes, size_t len, size_t piece)
{
	struct starttls starttls = { 0 };
	struct outcome outcome = { 0 };

	while (len > 0 && outcome.ret >= 0 && outcome.ret != STARTTLS_BEGIN) {
		size_t n = piece < len ? piece : len;
		uint8_t *copy = fuzz_copy(bytes, n);

		outcome.ret = starttls_feed(&starttls, copy, n, &outcome.err);
		free(copy);
		if (outcome.ret > 0 && outcome.ret != STARTTLS_BEGIN) {
			fuzz_check(outcome.ret == STARTTLS_SEND && !outcome.asked);
			outcome.asked = true;
		}
		bytes += n;
		len -= n;
	}
	fuzz_check((outcome.ret < 0) == (outcome.err.text[0] != '\0'));
	fuzz_check(outcome.ret != STARTTLS_BEGIN || outcome.asked);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome one, pieces;

	if (size < 1)
		return 0;
	one = feed(data + 1, size - 1, 1);
	pieces = feed(data + 1, size - 1, 2 + data[0]);
	/* Byte by byte it can't see what follows too early; in larger pieces it can, and refuses. */
	fuzz_check(one.ret >= 0 || pieces.ret < 0);
	fuzz_check(pieces.ret != STARTTLS_BEGIN || one.ret == STARTTLS_BEGIN);
	return 0;
}
