/* endpoint: one side of a copy: a volume of the library's, a stream (a pipe, or what else is
 * read or written in order), or nothing at all (null:). */
#ifndef NDIO_ENDPOINT_H
#define NDIO_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "key-input.h"
#include "ndio.h"

/* What the command line says of a side. */
struct endpoint_spec {
	const char *locator; /* a path, an NBD URI, "-" or "null:" */
	const char *header;  /* path of a detached LUKS header, or NULL */
	struct key_source key;
	bool unlock;         /* with a key, asked for at the terminal if there is no other */
};

enum endpoint_kind {
	ENDPOINT_VOLUME,
	ENDPOINT_STREAM,
	ENDPOINT_NULL,
};

#define SIZE_UNKNOWN UINT64_MAX

struct endpoint {
	enum endpoint_kind kind;
	const char *name;           /* for messages: the locator, or "standard input" */
	struct ndio_volume *volume; /* ENDPOINT_VOLUME */
	int fd;                     /* ENDPOINT_STREAM; doesn't block where that could be had */
	int file;                   /* a plain file that the copy made, to be cut; or -1 */
	struct image_lock *lock;    /* of a plain file that the copy writes */
	uint64_t size;              /* bytes, or SIZE_UNKNOWN */
	uint32_t block;             /* bytes; parts of one are slow. 1 for a stream */
	uint32_t can;               /* enum ndio_can */
	bool encrypted;
	bool zeroed;                /* a destination that reads as zeroes all over */
};

/* "-", "null:": not a place that a key could open. */
bool endpoint_is_special(const char *locator);

/* Would one be written while the other is read? By device and inode, or the same URI. Also
 * where the destination is a header that one of the two needs. */
bool endpoint_clash(const struct endpoint_spec *source, const struct endpoint_spec *destination);

/* Opens for reading. 0, or a negative errno with a message. */
int endpoint_open_source(struct endpoint *endpoint, const struct endpoint_spec *spec,
			 struct error *err);

/* Opens for writing what the source holds; refuses what is too small or read-only. A plain file
 * without a key is made, or emptied, and gets the source's size. */
int endpoint_open_destination(struct endpoint *endpoint, const struct endpoint_spec *spec,
			      const struct endpoint *source, struct error *err);

void endpoint_close_volume(struct endpoint *endpoint, enum ndio_close_how how);

/* The rest, and the volume if it is still open. Harmless on a zeroed struct. */
void endpoint_close(struct endpoint *endpoint);

/* A plain file that the copy made keeps only this many bytes, so that nobody takes it for the
 * whole. */
void endpoint_cut(struct endpoint *endpoint, uint64_t size);

#endif
