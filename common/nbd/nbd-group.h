/* nbd-group: the connections of one target that carry requests: which are up, and those that are
 * dialled again for the ones that were lost.
 *
 * A connection that was made again is used only once another that was there before has had an
 * answer to what it was asked after that: so the server is the one that it was, and nothing that it
 * has acknowledged was lost with it. When all are lost there is nobody to tell that: then the
 * target is lost, for good. */
#ifndef NDIO_NBD_GROUP_H
#define NDIO_NBD_GROUP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "nbd/nbd-link.h"

#define NBD_GROUP_MAX 64 /* connections */

/* One connection's place. Its own thread's, but for what is atomic. */
struct nbd_member {
	struct nbd_member *next;
	bool up;
	const void *tracer;   /* the command whose answer proves something, or NULL */
	unsigned asked_epoch; /* of it */
	atomic_uint proved;   /* the server was there still after so many were dialled again */
};

/* Is the server behind this link the one that it has to be? Told once if it isn't. */
typedef bool nbd_group_check_fn(void *opaque, struct nbd_link *link, struct error *err);

struct nbd_group {
	struct nbd_server *server;
	const char *context;
	nbd_group_check_fn *check;
	void *opaque;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct nbd_member *members;
	unsigned up, wanted; /* members that are up; connections to be dialled */
	bool lost;           /* all */
	atomic_uint epoch;   /* counts those that were dialled again */
	struct {
		struct nbd_link *link;
		unsigned epoch;
	} ready[NBD_GROUP_MAX];
	unsigned nr_ready;

	pthread_t thread; /* dials; from the first loss on */
	bool started;
	atomic_bool stop;
	int64_t redialled; /* when one was dialled again last */
	unsigned delay;    /* ms before the next try */
};

void nbd_group_init(struct nbd_group *group, struct nbd_server *server, const char *context,
		    nbd_group_check_fn *check, void *opaque);

void nbd_group_destroy(struct nbd_group *group); /* no members are left */

/* One thread at a time for these two. With the last member all dialling ends, soon. */
void nbd_group_join(struct nbd_group *group, struct nbd_member *member);
void nbd_group_leave(struct nbd_group *group, struct nbd_member *member);

/* The member's connection is lost: from now on another is dialled for it, if there are others. */
void nbd_group_lose(struct nbd_group *group, struct nbd_member *member);

/* The connection for a member that has lost its own, which is the member's then; NULL: not yet, or
 * never if nbd_group_is_lost(). */
struct nbd_link *nbd_group_mend(struct nbd_group *group, struct nbd_member *member);
bool nbd_group_is_lost(struct nbd_group *group);

/* Around each command of a member's: it is sent; its answer came, from the server. */
void nbd_group_asked(struct nbd_group *group, struct nbd_member *member, const void *command);
void nbd_group_answered(struct nbd_member *member, const void *command, bool by_server);

#endif
