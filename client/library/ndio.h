/* ndio: asynchronous vectored I/O to a disk that is a local file, a block device or an NBD
 * export, encrypted and decrypted on this side as LUKS. See ndio(3).
 *
 * Every function may be called from any thread at any time, except where it says otherwise, and
 * except in a callback (of a completion, of extents, of a notice, of an event): what would wait there
 * fails with -EDEADLK, since its thread may be the one that all wait for.
 * Functions that can fail return a negative errno, and ndio_error() has the sentence to show.
 * -EINVAL: NULL where something is needed, a negative count, a flag or a number that isn't known;
 * -EFAULT: bytes at the address NULL. Then nothing was done.
 * Offsets and lengths are bytes of the plaintext disk and need no alignment, though whole
 * blocks (struct ndio_info) are faster.
 */
#ifndef NDIO_H
#define NDIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct ndio_volume; /* an open disk */
struct ndio_queue;  /* where completions wait to be fetched */

/* What failed last in the calling thread, in one sentence without a newline; "" if nothing
 * did. Valid until the thread's next call to this library. */
const char *ndio_error(void);

/* "0.1.0", of the library that runs. */
const char *ndio_version(void);

/* ---- opening and closing ---- */

enum ndio_open_flag {
	NDIO_OPEN_READONLY = 1 << 0,   /* never write, even where that is possible */
	NDIO_OPEN_DISCARD = 1 << 1,    /* pass trims of an encrypted disk through, even where its
					header doesn't allow it */
	NDIO_OPEN_NO_LOCK = 1 << 2,    /* don't take the lock that keeps other writers off a file */
	NDIO_OPEN_KEY_SLOT = 1 << 3,   /* only options.key_slot is tried */
	NDIO_OPEN_NO_DISCARD = 1 << 4, /* pass no trims of one through, even where it does */
	NDIO_OPEN_NO_RECONNECT = 1 << 5, /* a server whose connections are lost is lost at once */
	NDIO_OPEN_TOKENS = 1 << 6, /* the LUKS2 header's tokens are tried, before the key if there
					is one */
	NDIO_OPEN_ONE_TOKEN = 1 << 7,  /* or only options.token is */
	NDIO_OPEN_VOLUME_KEY = 1 << 8, /* options.key is the volume key itself, for recovery: no
					key slot is opened */
	NDIO_OPEN_LEARN =
		1 << 9, /* with options.trust, opened read-only: what is seen for the first
					time goes into that file all the same */
};

enum ndio_direct {
	NDIO_DIRECT_AUTO, /* O_DIRECT, or the page cache where the file system refuses */
	NDIO_DIRECT_ON,   /* O_DIRECT or an error */
	NDIO_DIRECT_OFF,
};

/* What has become of the server of a disk that was opened without NDIO_OPEN_NO_RECONNECT. */
enum ndio_server {
	NDIO_SERVER_UP,
	NDIO_SERVER_AWAY,     /* it is dialled again, and requests wait for it */
	NDIO_SERVER_GIVEN_UP, /* dialled on, but for longer than options.reconnect: requests fail
				 with -ETIMEDOUT until it is up */
	NDIO_SERVER_ENDED,    /* for good: all requests fail, until the disk is opened anew: with
				 -ESTALE if it has another disk now, or has lost what it had
				 acknowledged; with -EACCES if it isn't who it was, by TLS.
				 (-ESTALE alone: of one with a trust file an older area, too) */
};

struct ndio_options {
	size_t struct_size;   /* sizeof(struct ndio_options): which members the caller knows; the
				library's newer ones are as if they were 0 */
	const void *key;      /* passphrase, or a key file's content; NULL: no encryption here */
	size_t key_len;       /* bytes */
	const char *header;   /* path of a detached LUKS header, or NULL */
	unsigned flags;       /* enum ndio_open_flag */
	int direct;           /* enum ndio_direct; files only */
	unsigned connections; /* to an NBD server that allows several; 0: 4 */
	size_t copy_memory;   /* bytes that NDIO_COPY may use at a time; 0: 64 MiB */
	/* Told of what the user should know though nothing failed, in the thread that opens; and
	 * why the TLS connection to a server was lost, or that one of several connections was, in
	 * one of the library's threads. It is a callback: see struct ndio_completion. NULL: nobody
	 * is. */
	void (*notice)(void *opaque, const char *message);
	void *opaque;
	int reserved;       /* 0 */
	uint64_t file_size; /* bytes: a regular file that can be written is taken to be at least so
				long. A write behind its end makes it longer; until then a read there
				fails. 0: as long as it is */
	unsigned key_slot;  /* with NDIO_OPEN_KEY_SLOT: number of the key slot to try; else each
				is that is in use, except for those whose priority is "ignore" */
	/* How long deriving keys may take in all, in seconds of an ordinary core, by estimate: a
	 * second is a million iterations of PBKDF2, or 1 GiB that Argon2 passes over. Key slots
	 * that take longer aren't tried. 0: 120 */
	unsigned max_kdf_time;
	unsigned answer_timeout; /* seconds, up to 86400: an NBD server that owes an answer and is
				  * silent for so long is lost. 0: 30 */
	/* Bytes of what an NBD server has acknowledged and not flushed yet, that are kept in memory
	 * to be sent again to one that was restarted: at least 1 MiB. 0: 64 MiB */
	uint64_t unflushed;
	/* Told what becomes of the server (enum ndio_server), once for each time, in order, and in
	 * one sentence: in a thread of the library's, which dials only when it has returned, and
	 * perhaps before ndio_open() has. It is a callback: see struct ndio_completion. The notice is
	 * told the same. NULL: nobody is. */
	void (*event)(void *opaque, int server, const char *message);
	unsigned reconnect; /* seconds, up to 86400: requests wait so long for an NBD server that is
			     * away, and then fail with -ETIMEDOUT. 0: 60. See
			     * NDIO_OPEN_NO_RECONNECT */
	/* Asked for the PIN of a token that needs one ("disk.luks: token 1 (systemd-fido2)"), in the
	 * thread that opens: fills pin, of size bytes, which are locked in memory and cleansed, and
	 * returns how many these are; or a negative errno: there is none. why tells why the one before
	 * isn't it; at first it is "". It is a callback, but may wait for somebody. NULL: nobody is
	 * asked. */
	ssize_t (*pin)(void *opaque, const char *token, const char *why, void *pin, size_t size);
	unsigned token; /* with NDIO_OPEN_ONE_TOKEN: its number */
	/* Path of a trust file (ndio-trust(1)), with a key: a disk that isn't what it was when it was last
	 * seen is refused with -ESTALE, or what is read of it. It is the volume's until that is closed, so it
	 * is written there, too: where the disk is opened read-only only with NDIO_OPEN_LEARN. NULL:
	 * there is none */
	const char *trust;
};

/* Opens a path or an NBD URI. options may be NULL: read and write, no key. The key is only
 * used during the call; the volume key is kept in locked memory, and with a key core dumps of
 * the process are turned off. Starts threads, so not before a fork. Blocks: with a key as long
 * as its derivation takes. *volume is NULL where it fails.
 *
 * A file or block device that is opened for writing is locked against other programs that write to
 * it, by qemu's locks; one that is only read isn't, but the notice tells of a writer. Volumes of one
 * process don't exclude each other.
 *
 * Tokens say where a passphrase comes from: a Tang server, a TPM, the kernel's keyring. They are tried
 * only where that is asked for: whoever writes the header chooses whom this machine talks to. One may
 * be silent for answer_timeout.
 *
 * -ESTALE the header is not the one that was sealed; -EBUSY another program writes to it; -EPERM no key slot opens with this key; -ENOKEY no token opens
 * it, and there is no key; -ENOENT there is no such key slot; -ETIME none that takes as little time as it may; -EINVAL not LUKS, damaged, too
 * small, a detached header without its disk; -ENOTSUP a LUKS feature that isn't supported, or key
 * slots that aren't safe; -EACCES this side or the server isn't who it should be, by TLS; -EPROTO what
 * the server says makes no sense; -ENOENT, -ECONNREFUSED, -ETIMEDOUT, ... */
int ndio_open(const char *locator, const struct ndio_options *options, struct ndio_volume **volume);

/* Opens with a key what was opened without one, over the connection that there is: for servers that
 * let in one client, once. Of the options, those about the key count. Nobody may use the volume
 * during the call. Where it fails the volume stays what it was; but if the connection is lost as
 * well, all that can be done with it is to close it. */
int ndio_unlock(struct ndio_volume *volume, const struct ndio_options *options);

enum ndio_close_how {
	NDIO_CLOSE_WAIT,   /* for all that is in flight */
	NDIO_CLOSE_CANCEL, /* fail what isn't done with -ECANCELED; a journal stays as it is */
};

/* Closes. Every request has completed when it returns (its callback has run, or its event is
 * in its queue), and nothing touches the callers' memory any more. Doesn't flush. Nobody may
 * use the volume during and after the call; only callbacks may still try to make requests, and get
 * -ESHUTDOWN. In a callback it does nothing but set ndio_error():
 * the volume stays open. NULL is fine. */
void ndio_close(struct ndio_volume *volume, enum ndio_close_how how);

/* ---- what it is ---- */

enum ndio_can {
	NDIO_CAN_WRITE = 1 << 0,
	NDIO_CAN_FLUSH = 1 << 1,
	NDIO_CAN_FUA = 1 << 2,
	NDIO_CAN_TRIM = 1 << 3,
	NDIO_CAN_FAST_ZERO = 1 << 4, /* NDIO_FAST_ZERO may succeed */
	NDIO_CAN_EXTENTS = 1 << 5,
	NDIO_CAN_CACHE = 1 << 6,
	NDIO_CAN_MULTI_CONN = 1 << 7, /* an NBD server that allows several connections */
};

struct ndio_info {
	size_t struct_size;   /* set by the caller: sizeof(struct ndio_info) */
	uint64_t size;        /* bytes, of the plaintext disk; whole blocks */
	uint32_t block;       /* bytes; parts of one are read, changed and written back */
	uint32_t can;         /* enum ndio_can */
	uint64_t target_size; /* bytes, of the file or export */
	int luks;             /* 0 without a key, else 1 or 2: the LUKS version */
	uint32_t sector;      /* bytes, of the cipher; 0 without a key */
	uint64_t data_offset; /* bytes, of the data in the file or export */
	char cipher[64];      /* "aes-xts-plain64", or "" */
	uint32_t key_bits;    /* of the volume key; 0 without a key */
	int direct;           /* the page cache isn't involved */
	int nbd;              /* an NBD export; the rest is about its server */
	int tls;
	uint32_t connections;                                   /* in use */
	uint32_t block_minimum, block_preferred, block_maximum; /* bytes; 0: it doesn't tell */
	char protocol[32];                                      /* "newstyle-fixed" */
	int structured_replies;
	char tls_version[16]; /* "TLSv1.3"; these three are "" without TLS */
	char tls_cipher[48];  /* "TLS_AES_128_GCM_SHA256" */
	char tls_peer[256];   /* "user NAME", or the subject of the server's certificate; "": it
				 isn't verified */
	uint64_t reconnect;   /* seconds, that it is waited for when it is away; 0: it isn't */
	int fences;           /* it ends what it was asked for over connections that are lost */
	char instance[33];    /* of its process, an id in hexadecimal; "": it doesn't tell */
};

int ndio_get_info(struct ndio_volume *volume, struct ndio_info *info);

struct ndio_stats {
	size_t struct_size;             /* set by the caller */
	uint64_t reads, writes, others; /* requests completed */
	uint64_t bytes_read, bytes_written;
	uint64_t bounced, zero_copy; /* pieces of requests */
	uint64_t partial;            /* blocks read, changed and written back */
	uint64_t pins, unpins;
	uint64_t in_flight;
	uint64_t errors;
	uint64_t server;  /* enum ndio_server; this and the rest are 0 where none is waited for */
	uint64_t away_ms; /* milliseconds, that it has been away for now */
	uint64_t times_lost; /* also if it came back */
	uint64_t unflushed;  /* bytes, that are kept to be sent again */
};

int ndio_get_stats(struct ndio_volume *volume, struct ndio_stats *stats);

/* What a request's negative error means, in words: "the server has not answered for 30 seconds". Valid
 * until the disk is closed. volume may be NULL. */
const char *ndio_reason(const struct ndio_volume *volume, int error);

/* ---- blocking calls ---- */

/* -EINVAL where a call doesn't have the flag. In a callback NDIO_PIN and NDIO_COPY are for memory
 * in a registered region alone, of which no page is missing; else -EDEADLK. */
enum ndio_flag {
	NDIO_FUA = 1 << 0,  /* ndio_pwritev, _zero, _trim: on stable storage before it completes */
	NDIO_PIN = 1 << 1,  /* ndio_preadv, _pwritev: keep the caller's memory resident until it
			       completes: every page fault happens in the calling thread. -ENOMEM,
			       -EPERM, -EAGAIN where the memory can't be locked. A read into a
			       shared file mapping, which faults even when locked, is copied there
			       by the thread that waits for or reaps the completion; with a callback
			       it is refused, -EOPNOTSUPP */
	NDIO_COPY = 1 << 2, /* ndio_pwritev: take a copy, so that the data may be reused at once.
			       -EAGAIN when that would take more than options.copy_memory */
	NDIO_MAY_TRIM = 1 << 3,  /* ndio_zero: may leave a hole */
	NDIO_FAST_ZERO = 1 << 4, /* ndio_zero: -EOPNOTSUPP rather than slow */
};

/* Read or write all of it; the bytes transferred, or a negative errno: -EINVAL beyond the end
 * (writes: -ENOSPC), -EROFS, -EIO, -ENOSPC, -ENOTCONN and -EPROTO of a server, ... After an
 * error the memory of a read may hold anything, ciphertext too. */
ssize_t ndio_preadv(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		    uint64_t offset, unsigned flags);
ssize_t ndio_pwritev(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		     uint64_t offset, unsigned flags);

/* All writes that completed before are on stable storage when it returns. Once it, or a request
 * with NDIO_FUA, has failed, neither ever succeeds on this volume again, since written data may be
 * lost; the error is the first one's. */
int ndio_flush(struct ndio_volume *volume);

/* Advice: the content of the whole blocks inside isn't needed any more. */
int ndio_trim(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags);
int ndio_zero(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags);

/* Ask for it to be read ahead. */
int ndio_cache(struct ndio_volume *volume, uint64_t offset, uint64_t len);

enum ndio_extent_type {
	NDIO_EXTENT_HOLE = 1 << 0, /* takes no space */
	NDIO_EXTENT_ZERO = 1 << 1, /* reads as zeroes */
};

/* Called for each extent in order, on one of the library's threads: a callback, see struct
 * ndio_completion. type: enum ndio_extent_type. Neighbours may have the same type. It returns 0, or
 * a negative errno, which ends the call and is what that returns. */
typedef int ndio_extent_fn(void *opaque, uint64_t offset, uint64_t len, unsigned type);
int ndio_extents(struct ndio_volume *volume, uint64_t offset, uint64_t len, ndio_extent_fn *extent,
		 void *opaque);

/* ---- asynchronous calls ---- */

/* How a request's end is told, either by callback or through a queue. error is 0 or a negative
 * errno. A callback runs once, on one of the library's threads, perhaps before the call that
 * made the request returns; all that this thread serves waits for it. It may make more requests
 * (see enum ndio_flag), fetch events without a wait, make and free queues. What would wait is
 * refused, -EDEADLK: blocking calls, ndio_open, ndio_close, ndio_queue_reap with a timeout,
 * ndio_region_*. Nor may it itself wait, or touch memory (an iovec array as well) that may have to
 * come from a disk which this library serves. */
struct ndio_completion {
	void (*callback)(void *opaque, int error); /* or NULL: */
	struct ndio_queue *queue;
	void *opaque; /* handed back */
};

/* Like the blocking calls; 0 when the request was made, and only then will it complete, once.
 * The iovec array may be freed or overwritten on return. The memory that it describes stays
 * untouched by the caller until completion, unless NDIO_COPY says otherwise. */
int ndio_aio_preadv(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		    uint64_t offset, unsigned flags, const struct ndio_completion *completion);
int ndio_aio_pwritev(struct ndio_volume *volume, const struct iovec *iov, int iovcnt,
		     uint64_t offset, unsigned flags, const struct ndio_completion *completion);
int ndio_aio_flush(struct ndio_volume *volume, const struct ndio_completion *completion);
int ndio_aio_trim(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags,
		  const struct ndio_completion *completion);
int ndio_aio_zero(struct ndio_volume *volume, uint64_t offset, uint64_t len, unsigned flags,
		  const struct ndio_completion *completion);
int ndio_aio_cache(struct ndio_volume *volume, uint64_t offset, uint64_t len,
		   const struct ndio_completion *completion);
int ndio_aio_extents(struct ndio_volume *volume, uint64_t offset, uint64_t len,
		     ndio_extent_fn *extent, void *extent_opaque,
		     const struct ndio_completion *completion);

/* ---- completion queues ---- */

struct ndio_event {
	void *opaque; /* of the completion */
	int error;    /* 0 or a negative errno */
};

/* A queue may serve several volumes. It must outlive every request that names it: free it when
 * each has completed, also from a callback; events not fetched are lost. NULL is fine. */
int ndio_queue_new(struct ndio_queue **queue);
void ndio_queue_free(struct ndio_queue *queue);

/* A descriptor that is readable while there are events: for poll, epoll, io_uring. Fetch until
 * there are none: it may stay readable until ndio_queue_reap() has returned 0. The queue keeps
 * it, and nobody else reads from it. */
int ndio_queue_fd(const struct ndio_queue *queue);

/* Fetches up to max events; waits for the first for timeout_ms milliseconds, -1: for ever. How
 * many, 0 when the time ran out; -EINTR when a signal came first. A callback doesn't get those
 * whose data are to be copied (see NDIO_PIN), nor what is behind them. */
int ndio_queue_reap(struct ndio_queue *queue, struct ndio_event *events, int max, int timeout_ms);

/* ---- memory ---- */

/* Pins a range for the long term; requests inside it with NDIO_PIN pin nothing more. -ENOMEM,
 * -EPERM, -EAGAIN where it can't be locked. Counted, so that ranges may overlap. Unregister
 * exactly such a range, when no request uses it and before it is unmapped; -ENOENT if it
 * isn't registered. */
int ndio_region_register(const void *base, size_t len);
int ndio_region_unregister(const void *base, size_t len);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
