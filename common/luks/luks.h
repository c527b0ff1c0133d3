/* luks: reads a LUKS1 or LUKS2 header and unlocks it, through libcryptsetup alone.
 *
 * The header is copied into a private memfd, sparse to the device's size, and libcryptsetup
 * sees only that: it repairs headers by itself and must never write to the user's image. */
#ifndef NDIO_LUKS_H
#define NDIO_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "luks/luks-slots.h"
#include "memory/secret.h"

/* Where a header is read from. read() fills buf with exactly len bytes at offset and returns
 * 0, or a negative errno; it is only asked for bytes below size. */
struct luks_source {
	const char *name; /* for messages: the path or URI */
	uint64_t size;    /* bytes */
	int (*read)(void *opaque, void *buf, size_t len, uint64_t offset);
	void *opaque;
	bool detached; /* the data are elsewhere */
};

/* Who gives a passphrase when the header has been read and checked, so that none is asked for in
 * vain; and again as long as it opens no key slot. The same source is used all the while: a server
 * may let in one client, once. */
struct luks_asker {
	/* Makes the key. err says why the one before opens nothing; the first time it is empty. 0, or
	 * a negative errno with a message: there is none. */
	int (*ask)(void *opaque, struct key *key, struct error *err);
	void *opaque;
};

/* Who decides whether a header may be believed. Each: 0, or a negative errno with a message. */
struct luks_guard {
	/* It is loaded, and nothing else was made of it. */
	int (*check_header)(void *opaque, struct luks_memfd *memfd, struct error *err);
	/* That is its volume key. */
	int (*check_key)(void *opaque, const void *key, size_t len, struct error *err);
	void *opaque;
};

/* What makes a volume the one that it is, whatever becomes of its key slots: a hash of its UUID, the
 * digest of its key, and where and how its data lie. */
#define LUKS_IDENTITY_LEN 32

/* What a header says of the data. Everything is checked: sector is 512 to 4096, the offset and
 * size are whole sectors and nothing overflows; the cipher is one that its user knows. That
 * the data lie within the device is for the caller to check. */
struct luks {
	unsigned version; /* 1 or 2 */
	char cipher
		[64]; /* "aes-xts-plain64"; and with the kind of integrity, if any: "aes-gcm-random aead" */
	bool integrity;        /* there is one: the sectors lie in a dm-integrity layout */
	bool no_journal;       /* of that, the header's flag: it's written without one */
	unsigned sector;       /* bytes */
	uint64_t data_offset;  /* bytes from the start of the data device */
	uint64_t data_size;    /* bytes, or 0: up to the end of the data device */
	uint64_t iv_offset;    /* 512-byte units, added to a sector's own number */
	uint64_t header_len;   /* bytes from the start of the header's device that are its own */
	uint64_t metadata_len; /* bytes of these that aren't key areas */
	bool allow_discards;   /* the header's flag: trims may be passed on */
	uint8_t identity[LUKS_IDENTITY_LEN];
	uint8_t metadata[LUKS_IDENTITY_LEN]; /* a hash of these, as they lay there */
	int slot;                            /* the key slot that opened it */
	void *key;                           /* the volume key, from secret_alloc(); owned */
	size_t key_len;                      /* bytes */
};

/* Loads the header and opens it. On success the caller owns luks->key; see luks_clear(). Errors,
 * each with a message that names the source: -EPERM no key slot opens with this passphrase; -ENOKEY
 * no token opens it, and there is no passphrase;
 * -EINVAL not a LUKS header, or one that is damaged, says something impossible, or has its data
 * elsewhere; -ENOTSUP another cipher or integrity, a requirement flag, a reencryption under way, key
 * slots that aren't safe, each named; -ETIME only key slots that take too long, -ENOENT no such key
 * slot; -EIO and so on from read(); -ENOMEM; what pass->guard says. */
int luks_unlock(const struct luks_source *source, const struct luks_pass *pass, struct luks *luks,
		struct error *err);

/* Reads the header anew, as far as luks, of luks_unlock(), says that it goes. 0, or a negative errno
 * with a message: it can't be read, or is none at the moment. */
int luks_identify(const struct luks_source *source, const struct luks *luks,
		  uint8_t identity[LUKS_IDENTITY_LEN], struct error *err);

/* The identity of what was loaded there. */
int luks_identify_memfd(struct luks_memfd *memfd, uint8_t identity[LUKS_IDENTITY_LEN],
			struct error *err);

/* Frees the key. Harmless on a zeroed struct. */
void luks_clear(struct luks *luks);

#endif
