/* trust-file: the file of trust.h in a file system. It is read and written by its owner alone, and one
 * process at a time has it. */
#ifndef NDIO_TRUST_FILE_H
#define NDIO_TRUST_FILE_H

#include "base/error.h"
#include "integrity/trust.h"

struct trust_file {
	int fd;
	char *path; /* absolute: the process may go elsewhere */
	bool read_only;
};

/* Makes it anew, in place of another one if `replace`; whoever is cut off leaves that, or nothing. 0;
 * -EEXIST; -EBUSY: some process has it; or another negative errno, with a message. */
int trust_file_make(const char *path, const struct trust_volume *volume, const char *text,
		    bool replace, struct error *err);

/* One that is to be replaced is held from before that is begun, so that nobody uses it meanwhile. *held: -1
 * if there is none. 0; -EBUSY: some process has it; or another negative errno, with a message. */
int trust_file_hold(const char *path, int *held, struct error *err);
void trust_file_let_go(int *held); /* harmless on -1 */

/* Gives one that is whole and closed its name: in place of the one that is held, or, -1, of none. 0; -EEXIST;
 * -EBUSY: what has the name isn't what is held; or another negative errno, with a message. */
int trust_file_rename(const char *from, const char *path, int held, struct error *err);

/* Opens it; read_only: nothing can be intended. Both are closed by trust_file_close(), which makes a last
 * checkpoint if something was written, and gives its error. 0; -EBUSY: another process has it; or another
 * negative errno, with a message. */
int trust_file_open(struct trust_file *file, struct trust *trust, const char *path, bool read_only,
		    struct error *err);
int trust_file_close(struct trust_file *file, struct trust *trust, struct error *err);

#endif
