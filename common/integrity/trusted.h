/* trusted: may this header be believed? By its own seal, and by a trust file if there is one, in the steps
 * in which a volume is opened:
 *
 *   trusted_open()          the trust file, held from here on
 *   trusted_check_header()  the header is loaded: before a passphrase is asked for, or a token used
 *   trusted_check_key()     it is unlocked
 *   trusted_check_areas()   a disk with integrity: its layout is known
 *   trusted_close()         when nothing uses the file any more
 *
 * A header that the trust file knows needs no seal of its own. One that is sealed has to be what was
 * sealed, with or without a trust file. */
#ifndef NDIO_TRUSTED_H
#define NDIO_TRUSTED_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "integrity/layout.h"
#include "integrity/seal-token.h"
#include "integrity/trust-file.h"
#include "integrity/trust.h"
#include "luks/luks-memfd.h"

struct trusted {
	struct trust_file file;
	struct trust trust; /* of the file */
	bool has_file;
	char *name; /* of the header's disk, for messages */
	char uuid[TRUST_UUID];
	char *text;              /* the header's canonical form; NULL for LUKS1 */
	struct seal_token token; /* in it */
};

/* path is that of the trust file, or NULL; what trust_file_open() returns. trusted_close() is due either
 * way. */
int trusted_open(struct trusted *trusted, const char *path, bool read_only, struct error *err);

/* What the header says of itself, without a check. 0, or a negative errno with a message. */
int trusted_read_header(struct trusted *trusted, struct luks_memfd *memfd, struct error *err);

/* And with it. -ESTALE, with a message: it is another one than was sealed; -ENOTSUP: LUKS1, with a trust file. */
int trusted_check_header(struct trusted *trusted, struct luks_memfd *memfd, struct error *err);

/* The same. A change of the header that was cut off is settled by what is there now. */
int trusted_check_key(struct trusted *trusted, const void *volume_key, size_t key_len,
		      struct error *err);

/* The same; layout is NULL where the disk has no integrity. */
int trusted_check_areas(const struct trusted *trusted, const struct layout *layout,
			struct error *err);

/* What the file says of this disk once it is known, with a count of seals and a MAC yet to come. */
struct trust_volume trusted_volume(const struct trusted *trusted, const struct layout *layout);

int trusted_close(struct trusted *trusted, struct error *err);

#endif
