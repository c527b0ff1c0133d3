/* header-seal: a header that is changed by ndio stays sealed (integrity/seal.h), in itself and in a trust
 * file, and is changed only if it was the one that was sealed.
 *
 * That needs the volume key. What is changed without it is no longer what was sealed, and what comes from a
 * backup has the seal of then, or none; its user is told. */
#ifndef NDIO_HEADER_SEAL_H
#define NDIO_HEADER_SEAL_H

#include "base/error.h"
#include "header/header-edit.h"
#include "header/header.h"

/* Before the header is loaded. trust is a trust file's path, or NULL. 0, or a negative errno with a
 * message. */
int header_seal_open(struct header *header, const char *trust, bool readonly, struct error *err);

/* The volume key is known: is the header the one that was sealed? It is kept for what is written. 0;
 * -ESTALE with a message: it isn't; or another negative errno. */
int header_seal_key(struct header *header, const void *volume_key, size_t key_len,
		    struct error *err);

/* Seals what is in the memfd, and says what it will be in the trust file: before it is written. Only what
 * was sealed, or is to be (HEADER_SEALED). 0, or a negative errno with a message. */
int header_seal_before(struct header *header, enum header_change change, struct error *err);

/* It is written: now the trust file knows it alone; or its user is told what became of the seal. 0,
 * or a negative errno with a message: the trust file still accepts what was, too. */
int header_seal_after(struct header *header, struct error *err);

/* For header.c: made, loaded, closed. */
void header_seal_init(struct header *header);
int header_seal_look(struct header *header, struct error *err);
void header_seal_close(struct header *header);

#endif
