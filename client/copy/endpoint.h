/* endpoint: one side of a copy: a volume of the library's, a stream (a pipe, or what else is
 * read or written in order), or nothing at all (null:). */
#ifndef NDIO_ENDPOINT_H
#define NDIO_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "library/ndio.h"
#include "terminal/key-input.h"
#include "terminal/unlock.h"

/* What the command line says of a side. */
struct endpoint_spec {
	const char *locator; /* a path, an NBD URI, "-" or "null:" */
	const char *header;  /* path of a detached LUKS header, or NULL */
	struct key_source key;
	struct unlock_options how;
	unsigned connections;    /* to a server; 0: as many as the library likes */
	unsigned answer_timeout; /* see struct ndio_options */
	unsigned reconnect;      /* seconds that a server is waited for; 0: it isn't */
	bool ask;                /* by an option of its own */
	bool unlock;             /* with a key, asked for at the terminal if there is no other */
};

#define SIZE_UNKNOWN UINT64_MAX

/* The largest alignment that direct I/O is likely to need. */
#define DIRECT_BLOCK 4096

struct endpoint {
	const struct endpoint_ops *ops;
	const char *name;           /* for messages: the locator, or "standard input" */
	struct ndio_volume *volume; /* or NULL */
	atomic_bool away;           /* its server is, and waited for */
	int fd; /* of a stream, which doesn't block where that could be had; or -1 */
	struct image_lock *lock; /* of a plain file that the copy writes */
	bool plain;              /* a stream to a file, which is emptied first */
	bool holes;              /* of a stream: what is passed over reads as zeroes */
	int file;                /* a plain destination, which grows; or -1 */
	uint64_t length;         /* bytes that it has */
	uint64_t tail;           /* bytes: with what comes from here on it looks whole */
	bool created;            /* it wasn't there before */
	uint64_t size;           /* bytes, or SIZE_UNKNOWN */
	uint32_t block;          /* bytes; parts of one are slow. 1 for a stream */
	uint32_t sector;         /* bytes, of the cipher; 0 without a key */
	uint32_t can;            /* enum ndio_can */
	uint64_t zero_max;       /* bytes of zeroes that a request writes; 0: they are data */
	bool encrypted;
	bool zeroed; /* a destination that reads as zeroes all over */
};

/* Where a copy that was stopped goes on, as the command line says. */
struct resume_from {
	uint64_t offset; /* bytes: all below is there; SIZE_UNKNOWN: it doesn't say */
	uint64_t size;   /* bytes of the source then; or SIZE_UNKNOWN */
};

/* And as it was found out. */
struct resume {
	uint64_t end;  /* bytes: compared below, and written from there on */
	uint64_t gate; /* bytes: all below must be equal, before anything is written */
	bool sure;     /* that is all of it; otherwise what is equal behind is found out */
};

struct copy;
struct slot;

/* What a copy asks of an endpoint. The copy's lock is held, where nothing else is said. Of null:, which is
 * no source, the first four are NULL. */
struct endpoint_ops {
	/* A source. Gives an idle slot the next piece and sends it on its way, if there is one now. */
	void (*fetch)(struct slot *slot);
	/* Will there be another, up to where the copy goes now? */
	bool (*has_more)(const struct copy *copy);
	/* Could fill() read from endpoint->fd, when that is ready? Both NULL: the library does it. */
	bool (*can_fill)(struct copy *copy);
	void (*fill)(struct copy *copy); /* main thread, without the lock */

	/* A destination. It will be written, in pieces of piece bytes: a plain file is emptied, and
	 * grows from here on. 0, or a negative errno with a message. Main thread, without the lock, as
	 * the next one. */
	int (*begin)(struct endpoint *endpoint, uint64_t piece, struct error *err);
	/* Instead: it keeps what is there. How much that is is said by from; else by the mark of a
	 * plain file that a copy left, or its length. -EINVAL with a message: it can't be a copy of
	 * this source. NULL: a copy to there can't go on. */
	int (*resume)(struct endpoint *endpoint, const struct endpoint *source,
		      const struct resume_from *from, uint64_t piece, struct resume *resume,
		      struct error *err);
	/* Takes the piece in the slot's buffer, which is in flight, and leaves the flight for it. Any
	 * thread, without the lock. */
	void (*put)(struct slot *slot);
	/* The same of a piece of zeroes, which aren't in the buffer. */
	void (*put_zeroes)(struct slot *slot);
	/* As can_fill() and fill(). */
	bool (*can_drain)(struct copy *copy);
	void (*drain)(struct copy *copy);
	/* Starts to bring all to stable storage. Main thread, without the lock. */
	void (*flush)(struct copy *copy);
};

extern const struct endpoint_ops endpoint_volume, endpoint_stream, endpoint_null;

/* "-", "null:": not a place that a key could open. */
bool endpoint_is_special(const char *locator);

/* Opens for reading. 0, or a negative errno with a message. */
int endpoint_open_source(struct endpoint *endpoint, const struct endpoint_spec *spec,
			 struct error *err);

/* The same of a volume, with a key that isn't read by spec, and enum ndio_open_flag. */
int endpoint_open_with_key(struct endpoint *endpoint, const struct endpoint_spec *spec,
			   const struct key *key, unsigned flags, struct error *err);

/* Opens for writing what the source holds; refuses what is too small or read-only. A plain file
 * without a key is made; one that is there stays as it is until the copy begins. */
int endpoint_open_destination(struct endpoint *endpoint, const struct endpoint_spec *spec,
			      const struct endpoint *source, struct error *err);

void endpoint_close_volume(struct endpoint *endpoint, enum ndio_close_how how);

/* The rest, and the volume if it is still open. Harmless on a zeroed struct. */
void endpoint_close(struct endpoint *endpoint);

/* What begin() and resume() are of a volume, and of a plain file. */
int endpoint_begin_volume(struct endpoint *endpoint, uint64_t piece, struct error *err);
int endpoint_resume_volume(struct endpoint *endpoint, const struct endpoint *source,
			   const struct resume_from *from, uint64_t piece, struct resume *resume,
			   struct error *err);

/* Instead of either: only what differs will be written. A plain file gets the source's length, and the mark
 * of one that is being written. */
int endpoint_begin_changes(struct endpoint *endpoint, const struct endpoint *source,
			   struct error *err);

/* What had to be equal is: a plain file ends there, and gets the mark of one that is written. 0 or a
 * negative errno. */
int endpoint_accept(struct endpoint *endpoint, const struct resume *resume);

/* It is whole: a plain file has no mark any more. */
void endpoint_unmark(struct endpoint *endpoint);

/* A write before endpoint->tail will end here: makes a plain file long enough, and some more, since
 * writes that make a file longer exclude each other. 0 or a negative errno. */
int endpoint_grow(struct endpoint *endpoint, uint64_t end);

/* All is written: a plain file gets its full length, if zeroes at its end weren't. */
int endpoint_finish(struct endpoint *endpoint);

/* Nothing more comes: a stream's file ends here, though it be with a hole. 0 or a negative errno.
 * Harmless on all else. */
int endpoint_end(const struct endpoint *endpoint);

/* It was stopped: a plain file keeps only this many bytes, and is marked so that it can go on. */
void endpoint_cut(struct endpoint *endpoint, uint64_t size);

/* Nothing was written: a plain file that wasn't there goes again. Was there one? */
bool endpoint_unmake(struct endpoint *endpoint);

#endif
