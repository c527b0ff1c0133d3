/* journal-overlay: reads a disk as it will be when what somebody who was cut off left in its journal has been
 * carried out, and writes nothing: for who may not write.
 *
 * Of each block that is in the journal the newest copy counts, as journal-replay decides. In memory there are
 * its tag, where its data lie in the journal, and the last bytes of its sectors, which lie apart there. Tags
 * that were read from their place get those of the journal put over them; data are read from where they are.
 * Nobody may write to the disk meanwhile. Once it is open, any thread. */
#ifndef NDIO_JOURNAL_OVERLAY_H
#define NDIO_JOURNAL_OVERLAY_H

#include <stdint.h>

#include "base/error.h"
#include "integrity/journal-recover.h"
#include "integrity/layout.h"

struct journal_overlay;

/* Reads the journal. layout stays. 0; -EIO: it is damaged; or another negative errno; with a message. */
int journal_overlay_open(const struct journal_io *io, const struct layout *layout,
			 struct journal_overlay **overlay, struct error *err);
void journal_overlay_close(struct journal_overlay *overlay); /* NULL is fine */

/* Bytes of tags that were read from this place of the segment. */
void journal_overlay_tags(const struct journal_overlay *overlay, uint64_t at, uint64_t len,
			  uint8_t *bytes);

/* Where the data from offset on are to be read: bytes in the segment. *len, whole blocks of one area, becomes
 * as many as lie there side by side. */
uint64_t journal_overlay_place(const struct journal_overlay *overlay, uint64_t offset,
			       uint64_t *len);

/* They were read from there: makes them whole. */
void journal_overlay_restore(const struct journal_overlay *overlay, uint64_t offset, uint64_t len,
			     uint8_t *data);

#endif
