/* tab: tables in files, in the manner of fstab(5): an entry a line, of fields by blanks and tabs, the last
 * of which may be options by commas. Blank lines, and those that start with #, mean nothing. */
#ifndef NDIO_TAB_H
#define NDIO_TAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* ---- files ---- */

/* All of a plain file, max bytes at the most, and room for one more. 0, and *text is to be freed; or a
 * negative errno with a message that names the file: -EFBIG, -ENOENT, -EACCES, ... */
int tab_read(const char *path, size_t max, char **text, size_t *len, struct error *err);

/* What a line means: 0; or a negative errno, and why says what is wrong with it. The line is the taker's
 * to cut; number counts from 1. */
typedef int tab_taker(void *opaque, char *line, unsigned number, struct error *why);

/* Each line that means something, in order, up to the first that is wrong: the message then starts with
 * "PATH:NUMBER: ". Text is cut into strings, and written to behind its len bytes. */
int tab_take_lines(const char *path, char *text, size_t len, tab_taker *take, void *opaque,
		   struct error *err);

/* ---- a line ---- */

/* The next field, ended by a NUL; NULL if there is none. */
char *tab_next_field(char **line);

enum tab_kind {
	TAB_FLAG,   /* bool: no value */
	TAB_TEXT,   /* const char *, perhaps "" */
	TAB_PATH,   /* const char *: an absolute one */
	TAB_PLACE,  /* const char *: the same, or an address, without a slash */
	TAB_WORD,   /* unsigned: its place among words */
	TAB_NUMBER, /* unsigned */
	TAB_POWER,  /* unsigned: a power of two */
	TAB_SIZE,   /* uint64_t: bytes */
};

struct tab_option {
	const char *name;
	size_t member; /* of an entry: its offset */
	enum tab_kind kind;
	uint64_t min, max; /* of a number or size */
	const char *words; /* "auto, on, off" */
	unsigned needs;    /* the caller's own */
};

#define TAB_OPTIONS_MAX 32 /* bits of given */

/* Sets members of an entry as a list of options by commas says, which is cut; strings stay in it. The list
 * may be NULL. Those that are given are told by their bits, and twice is an error; given may be NULL. 0,
 * or -EINVAL and why. */
int tab_set_options(void *entry, const struct tab_option *options, size_t count, char *list,
		    uint32_t *given, struct error *why);

#endif
