/* key-input: a passphrase or key from a file, a descriptor or the terminal, into memory that
 * is locked, kept out of core dumps and cleansed. Never from an argument or the environment. */
#ifndef NDIO_KEY_INPUT_H
#define NDIO_KEY_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "memory/key-file.h"
#include "memory/secret.h"

/* Where to read it, as the command line says. With neither, it is asked for at the terminal. */
struct key_source {
	const char *file;     /* its bytes are the key; "-": stdin; or NULL */
	int fd;               /* until its end; or -1 */
	bool agents;          /* without a terminal, systemd's password agents are asked */
	struct key_part part; /* which bytes of either */
};
#define KEY_SOURCE_NONE                                                                            \
	{                                                                                          \
		.file = NULL, .fd = -1, .agents = false                                            \
	}

/* Did the command line name a file or a descriptor? */
bool key_source_given(const struct key_source *source);

/* Take the values of --key-file and --key-fd. False: not a descriptor's number, or one of
 * the two was given before. */
bool key_source_set_file(struct key_source *source, const char *value);
bool key_source_set_fd(struct key_source *source, const char *value);

/* Take the values of --keyfile-offset and --keyfile-size, cryptsetup's words. NULL, or what is wrong
 * with them. */
const char *key_source_set_offset(struct key_source *source, const char *value);
const char *key_source_set_size(struct key_source *source, const char *value);

/* When all options were taken: NULL, or what is wrong, since a part is of a file or descriptor. */
const char *key_source_check(const struct key_source *source);

/* Do both read the same stream? Then one of them would find it empty. */
bool key_sources_clash(const struct key_source *a, const struct key_source *b);

/* Reads the key, and turns core dumps off before. prompt is for the terminal, without a colon:
 * "Passphrase for disk.luks"; what is typed has no newline and isn't shown. A key that is new
 * may not be empty, and if it is typed, it is typed twice, and where the two differ up to three
 * times. 0, or a negative errno with a message: -ENOTTY no terminal, -EINVAL the two differ or it
 * is empty, -EFBIG, -ENOENT, ... The caller ends with key_clear(). */
int key_read(const struct key_source *source, const char *prompt, bool is_new, struct key *key,
	     struct error *err);

/* Asks a question at the terminal and shows what is typed. 1: it was exactly "YES"; 0: it was
 * not; -ENOTTY: there is no terminal to ask at. */
int terminal_confirm(const char *question);

#endif
