/* channel: what I/O to a volume goes through: a target's queue, bounce memory, cipher contexts.
 *
 * Used by one thread at a time, so its path takes no lock. Several requests can run in it at
 * once; a large one runs as a pipeline of pieces, one encrypted while another is on its way. */
#ifndef NDIO_CHANNEL_H
#define NDIO_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "engine/helpers.h"
#include "engine/request.h"
#include "engine/volume.h"

struct channel_options {
	unsigned pieces;         /* of bounce memory, and so subrequests in flight at the most */
	size_t piece_len;        /* bytes; less is used where the target takes less */
	bool huge_pages;         /* for whoever has bounce memory made for it: see bounce_init() */
	struct helpers *helpers; /* for large pieces of a volume with a key, or NULL */
};

/* Bytes of bounce memory that a channel needs. */
size_t channel_bounce_len(const struct channel_options *options);

/* Is the request a single subrequest where pieces are so long? Zeroes count as if they had to
 * be written; of other operations without data it is true. */
bool channel_one_piece(const struct ndio_request *request, size_t piece_len);

struct channel;

/* bounce is channel_bounce_len() bytes, on whole pages, which outlive the channel. 0, or a
 * negative errno with a message. Opens a ring: not across a fork. */
int channel_open(struct volume *volume, const struct channel_options *options, struct bvec bounce,
		 struct channel **channel, struct error *err);
void channel_close(struct channel *channel); /* idle; NULL is fine */

/* Takes a request whose range is held, and over from the caller the reference REF_CHANNEL. */
void channel_start(struct channel *channel, struct ndio_request *request);

/* Sends pieces while there are any and room for them. All but the last are sent off at once,
 * so that the target works while the next is encrypted. Where the way to the target is lost,
 * requests of which nothing was sent yet fail; or wait, with keep_unsent, until they are taken
 * back. True if the caller has something to do before anything lands: a request has ended with
 * nothing in flight (an empty one, or a failed one), or there are some to be taken back. */
bool channel_send(struct channel *channel, bool keep_unsent);

/* Reaps what has landed. With sleep it waits until something does, if anything is in flight,
 * or until wake_fd, unless it is -1, can be read. */
void channel_wait(struct channel *channel, bool sleep, int wake_fd);

/* In a channel that only reads: has all landed, so that nothing is left for the target to do,
 * unless it fell short? */
bool channel_all_read(const struct channel *channel);

/* Decrypts what was reaped, asks for what is missing or to be read next, and completes what is done. */
void channel_land(struct channel *channel);

/* From now on what fails was canceled, and so is what is started: for channels whose
 * cancelling may make each other's requests fail, before the first of them is. Any thread. */
void channel_expect_cancel(struct channel *channel);

/* Is the way to the target there? */
bool channel_is_up(const struct channel *channel);

/* Takes back those of which nothing was sent yet, for another channel: oldest first and linked
 * by ->next, each with REF_CHANNEL. */
struct ndio_request *channel_take_unsent(struct channel *channel);

/* Ends every request that was started, with -ECANCELED where it isn't done; go on until
 * all have. */
void channel_cancel(struct channel *channel);

#endif
