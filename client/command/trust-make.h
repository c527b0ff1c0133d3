/* trust-make: a header that is sealed, and a trust file made: of a disk as it is.
 *
 *   trust_job_look()     the header is read; what can't be done is refused before a passphrase is asked for.
 *                        A file that is replaced is held from here on: who wrote the disk with it while that
 *                        is read would leave something that the new one takes for older
 *   trust_job_try_key()  opens it
 *   trust_job_run()      a file beside the one that is to be is made; the disk is read, which fills it;
 *                        the seal is written; and when all that is safe, the file gets its name
 *
 * So whatever cuts it off leaves no file, or the old one, and a header that opens. Main thread only. */
#ifndef NDIO_TRUST_MAKE_H
#define NDIO_TRUST_MAKE_H

#include <stdbool.h>

#include "base/error.h"
#include "command/header-run.h"
#include "header/header.h"
#include "terminal/unlock.h"

struct trust_job {
	struct header_place place;
	const char *path; /* of the file, or NULL: only the header is sealed */
	const struct unlock_options *how;
	bool again;       /* whatever the header was sealed as; and the file is replaced */
	bool header_only; /* or what it knows of the data stays */
	bool is_new;      /* the disk was formatted just now: it isn't read */
	struct header header;
	int old; /* the file that is replaced, held until it is; or -1 */
};

/* trust_job_end() is due from here on. Each of the others: 0, or a negative errno with a message. */
void trust_job_init(struct trust_job *job);
void trust_job_end(struct trust_job *job);

int trust_job_look(struct trust_job *job, struct error *err);
int trust_job_try_key(void *job, const struct key *key, struct error *err); /* a key_try_fn */
int trust_job_run(struct trust_job *job, struct error *err);

#endif
