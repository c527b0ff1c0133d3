/* error: one sentence for the user, beside the negative errno that the caller acts on. */
#ifndef NDIO_ERROR_H
#define NDIO_ERROR_H

/* Text is empty until something failed; it has no newline and starts in lower case or with
 * the name of the thing that failed. Owned by the caller, usually on its stack. */
struct error {
	char text[512];
};

/* Records a message, cut to fit, and returns -errnum, so that a failing function ends in
 * `return error_set(err, EINVAL, ...)`. errnum is positive. err may be NULL. errno stays.
 * What err has may be among the arguments. */
int error_set(struct error *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Why an operation on a disk failed, as strerror(3) has it, but that ENOTCONN and ESTALE are of the
 * server, and EILSEQ of integrity. */
const char *error_reason(int errnum);

#endif
