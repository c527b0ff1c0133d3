/* waiting-io: a target's bytes by calls that wait, for who opens a volume and has no channel yet. */
#ifndef NDIO_WAITING_IO_H
#define NDIO_WAITING_IO_H

#include "base/error.h"
#include "engine/target.h"
#include "integrity/journal-recover.h"

struct waiting_io {
	struct target *target;
	struct target_queue *queue;
	uint64_t start; /* bytes: places are from there on */
	uint8_t *bounce;
};

/* Takes one of the target's queues until waiting_io_close(). 0 or a negative errno with a message. */
int waiting_io_open(struct waiting_io *io, struct target *target, uint64_t start,
		    struct error *err);
void waiting_io_close(struct waiting_io *io);

/* As the journal wants it. */
struct journal_io waiting_io_calls(struct waiting_io *io);

#endif
