/* luks-slots: the key slots of a header: which of them may be tried, what that costs, and opening
 * one.
 *
 * Each is tried on its own, since libcryptsetup stops at the first one that is bad, in its order:
 * by priority, then by number. Before any key is tried a slot is checked: a header is hostile, and
 * may bring one that opens with any passphrase, or one that computes for years. */
#ifndef NDIO_LUKS_SLOTS_H
#define NDIO_LUKS_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/notice.h"
#include "luks/luks-memfd.h"

#define LUKS_ANY_SLOT     (-1)
#define LUKS_MAX_KDF_TIME 120 /* seconds */

struct luks_asker;
struct luks_guard;
struct luks_tokens;

/* What opens a volume. */
struct luks_pass {
	const void *data; /* a passphrase, or a key file's content */
	size_t len;       /* bytes */
	bool volume_key;  /* it is the volume key itself: no key slot is opened; the number is 0 */
	const char *name; /* in messages; NULL: "this passphrase" */
	int slot;         /* the only one that is tried, or LUKS_ANY_SLOT */
	uint32_t slots; /* with that: a bit for each that is tried, by whatever priority; 0: all */
	/* How long deriving keys may take in all, in seconds of an ordinary core, by estimate: a
	 * million iterations of PBKDF2, or 1 GiB that Argon2 passes over. 0: LUKS_MAX_KDF_TIME. */
	unsigned max_kdf_time;
	const struct notice *notice;    /* or NULL; told of what takes long, before it is begun */
	const struct luks_asker *asker; /* or NULL; for luks_unlock(), in place of data and len */
	/* or NULL; for luks_unlock(): tried before these. Without data nothing else is then. */
	const struct luks_tokens *tokens;
	const struct luks_guard
		*guard; /* or NULL; for luks_unlock(), before any of these is used */
	/* Can a volume key of so many bytes be used with this cipher? 0, or -ENOTSUP and why not:
	 * cipher_supported(), where the data are to be read. */
	int (*fits)(const char *cipher, size_t key_len, struct error *why);
};

/* Opens a slot: its number, and the volume key, *key_len bytes from secret_alloc() that are the
 * caller's; or a negative errno, and nothing is. cipher is what the volume key has to fit, or
 * NULL. -EPERM: none opens. -ENOENT: there is no such slot. Needs the key areas in the memfd. */
int luks_slots_open(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		    void **key, size_t *key_len, struct error *err);

/* May all of pass->slots that are in use be tried, and hold keys of the same length, *key_len bytes? 0, or a
 * negative errno and why not: for what tries them without us. */
int luks_slots_check(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		     size_t *key_len, struct error *why);

/* Is any of them in use whose key fits cipher? -EPERM: none is in use; -ENOTSUP. */
int luks_slots_check_cipher(struct luks_memfd *memfd, const struct luks_pass *pass,
			    const char *cipher, struct error *err);

#endif
