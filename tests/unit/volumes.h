/* volumes: makes LUKS volumes with cryptsetup, and damages them, in a folder of their own. */
#ifndef NDIO_TESTS_VOLUMES_H
#define NDIO_TESTS_VOLUMES_H

#include <stddef.h>
#include <stdint.h>

#define VOLUME_PASSPHRASE "correct horse"

/* Make and remove the folder, under $TMPDIR. 0, or -1: they fit cmocka's group fixtures. */
int volumes_setup(void **state);
int volumes_teardown(void **state);

/* Runs a shell command in the folder, where the file `pass` holds the passphrase. The calling
 * test fails if the command does. */
void volumes_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Makes a sparse file of mib MiB and runs luksFormat over it, with cheap key derivation. */
void volume_format(const char *name, unsigned mib, const char *options);

/* A file's content, to be freed, and a file made of some. Names are within the folder. */
void *volume_read(const char *name, size_t *len);
void volume_write(const char *name, const void *content, size_t len);

void volume_overwrite(const char *name, uint64_t offset, const void *bytes, size_t len);
void volume_zero(const char *name, uint64_t offset, size_t len);

/* Replaces text in both copies of a LUKS2 volume's JSON and puts the checksums right. */
void volume_edit(const char *name, const char *text, const char *replacement);

#endif
