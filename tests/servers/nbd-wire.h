/* nbd-wire: what the NBD protocol puts on the wire before TLS, in network byte order. */
#ifndef NDIO_TESTS_NBD_WIRE_H
#define NDIO_TESTS_NBD_WIRE_H

#include <endian.h>
#include <stdint.h>

#define NBD_MAGIC      0x4e42444d41474943 /* NBDMAGIC */
#define NBD_OPTS_MAGIC 0x49484156454f5054 /* IHAVEOPT */
#define NBD_REP_MAGIC  0x0003e889045565a9

enum {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum { NBD_OPT_STARTTLS = 5 };

#define NBD_REP_ACK          UINT32_C(1)
#define NBD_REP_ERR_TLS_REQD UINT32_C(0x80000005)

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
