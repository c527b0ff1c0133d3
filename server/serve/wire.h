/* wire: the numbers of the NBD protocol, and how they stand in its messages: in network byte order,
 * at no alignment. See doc/proto.md of the NBD project. */
#ifndef NDIO_SERVE_WIRE_H
#define NDIO_SERVE_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_MAX_STRING 4096 /* bytes */

/* ---- the handshake ---- */

#define NBD_MAGIC      0x4e42444d41474943 /* NBDMAGIC */
#define NBD_OPTS_MAGIC 0x49484156454f5054 /* IHAVEOPT */
#define NBD_REP_MAGIC  0x0003e889045565a9

/* Both the server's and the client's. */
enum {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ACK                 UINT32_C(1)
#define NBD_REP_SERVER              UINT32_C(2)
#define NBD_REP_INFO                UINT32_C(3)
#define NBD_REP_META_CONTEXT        UINT32_C(4)
#define NBD_REP_ERR_UNSUP           UINT32_C(0x80000001)
#define NBD_REP_ERR_POLICY          UINT32_C(0x80000002)
#define NBD_REP_ERR_INVALID         UINT32_C(0x80000003)
#define NBD_REP_ERR_PLATFORM        UINT32_C(0x80000004)
#define NBD_REP_ERR_TLS_REQD        UINT32_C(0x80000005)
#define NBD_REP_ERR_UNKNOWN         UINT32_C(0x80000006)
#define NBD_REP_ERR_SHUTDOWN        UINT32_C(0x80000007)
#define NBD_REP_ERR_BLOCK_SIZE_REQD UINT32_C(0x80000008)
#define NBD_REP_ERR_TOO_BIG         UINT32_C(0x80000009)
#define NBD_REP_ERR_EXT_HEADER_REQD UINT32_C(0x8000000a)

enum {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* ---- transmission ---- */

#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC   UINT32_C(0x6e8a278c)

/* What an export can do. */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

enum { NBD_REPLY_FLAG_DONE = 1 << 0 };

enum {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
	NBD_REPLY_TYPE_ERROR = 0x8001,
	NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002,
};

/* Of the context base:allocation. */
enum {
	NBD_STATE_HOLE = 1 << 0,
	NBD_STATE_ZERO = 1 << 1,
};

/* All that a reply may say. */
enum {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* ---- numbers in messages ---- */

static inline uint16_t get_be16(const uint8_t *at)
{
	uint16_t number;

	memcpy(&number, at, sizeof(number));
	return be16toh(number);
}

static inline uint32_t get_be32(const uint8_t *at)
{
	uint32_t number;

	memcpy(&number, at, sizeof(number));
	return be32toh(number);
}

static inline uint64_t get_be64(const uint8_t *at)
{
	uint64_t number;

	memcpy(&number, at, sizeof(number));
	return be64toh(number);
}

/* These return what is behind the number. */
static inline uint8_t *put_be16(uint8_t *at, uint16_t number)
{
	number = htobe16(number);
	memcpy(at, &number, sizeof(number));
	return at + sizeof(number);
}

static inline uint8_t *put_be32(uint8_t *at, uint32_t number)
{
	number = htobe32(number);
	memcpy(at, &number, sizeof(number));
	return at + sizeof(number);
}

static inline uint8_t *put_be64(uint8_t *at, uint64_t number)
{
	number = htobe64(number);
	memcpy(at, &number, sizeof(number));
	return at + sizeof(number);
}

#endif
