/* area-doubts: areas that were being written when somebody was cut off stay in doubt until they are read. Those
 * that nobody reads would be more at every crash, until the trust file has no room for what is written. So
 * who opens a disk for writing, and finds that many are, reads some of them and has them settled. */
#ifndef NDIO_AREA_DOUBTS_H
#define NDIO_AREA_DOUBTS_H

#include "base/error.h"
#include "integrity/areas.h"
#include "integrity/journal-recover.h"

/* Records of what is in doubt: above so many some are settled, until there are no more than so few. One crash
 * leaves fewer than many; with many there is room for all that a sweep intends before it settles. */
#define DOUBTS_MANY (TRUST_LOG / 2)
#define DOUBTS_FEW  TRUST_RECORDS

/* Nothing is in memory of the areas yet, and in the journal nothing any more. can_flush: the disk can. What
 * can't be read, or isn't what it should be, stays in doubt. 0, or a negative errno with a message: the trust
 * file can't be written, or the disk not flushed. */
int area_doubts_settle(struct areas *areas, const struct journal_io *io, bool can_flush,
		       struct error *err);

#endif
