/* nbd-wire: what the NBD protocol puts on the wire before TLS, in network byte order. */
#ifndef NDIO_TESTS_NBD_WIRE_H
#define NDIO_TESTS_NBD_WIRE_H

#include "serve/wire.h"

struct nbd_greeting {
	uint64_t magic, opts_magic;
	uint16_t flags;
} __attribute__((packed));

struct nbd_option {
	uint64_t magic;
	uint32_t option;
	uint32_t len; /* of the data that follow */
} __attribute__((packed));

struct nbd_option_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t len;
} __attribute__((packed));

#endif
