/* key-source: where the volume's key comes from: passphrase=, ask=, or keyfile= with its part. */
#ifndef NDIO_KEY_SOURCE_H
#define NDIO_KEY_SOURCE_H

#include <stdint.h>

int key_source_passphrase(const char *value);
int key_source_file(const char *value);
int key_source_ask(const char *value);

/* keyfile-offset= and keyfile-size=. */
int key_source_part(const char *key, uint64_t *number, int64_t max, const char *value);

int key_source_read(void);
int key_source_check(void);

#endif
