/* client: what the test clients share. An error that no test expects ends the program. */
#ifndef NDIO_TESTS_CLIENT_H
#define NDIO_TESTS_CLIENT_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../lib/fail.h"

#define BLOCK 4096

static inline struct nbd_handle *connect_to(const char *uri)
{
	struct nbd_handle *nbd = nbd_create();

	/* Files of keys and certificates, too. */
	if (!nbd || nbd_set_uri_allow_local_file(nbd, true) < 0 || nbd_connect_uri(nbd, uri) < 0)
		fail("%s", nbd_get_error());
	return nbd;
}

static inline void disconnect(struct nbd_handle *nbd)
{
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

/* xorshift64*: the state is any number but 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d;
}

/* 0 to below - 1 */
static inline uint64_t random_below(uint64_t *state, uint64_t below)
{
	return (random_next(state) >> 16) % below;
}

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

#endif
