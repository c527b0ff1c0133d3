/* nbd-watch: a thread that cuts connections which hold their user inside libnbd.
 *
 * libnbd reads on as long as something comes, so that a server which sends without end would hold
 * who reads for ever. Whoever enters it says until when it may take, and a connection that takes
 * longer is shut down, which libnbd finds to be its end. */
#ifndef NDIO_NBD_WATCH_H
#define NDIO_NBD_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define NBD_WATCH_MS 250 /* how often it looks */

/* A connection, while it is watched. */
struct nbd_watched {
	struct nbd_watched *next;
	int fd;
	atomic_llong until; /* a time of clock_ms(); 0: nobody is inside */
	atomic_bool cut;

	/* Of the thread that watches. */
	int64_t seen;  /* until, when it last looked */
	int64_t grace; /* ms that it was late with looking since then */
};

struct nbd_watch {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct nbd_watched *first;
	unsigned users; /* it runs while there are any */
	bool stop;
	pthread_t thread;
};

void nbd_watch_init(struct nbd_watch *watch);
void nbd_watch_destroy(struct nbd_watch *watch); /* no users, nothing watched */

/* It runs from the first of these to the last of those: not across a fork. One thread at a time; several may
 * stop it. 0, or a negative errno with a message without a name. */
int nbd_watch_start(struct nbd_watch *watch, struct error *err);
void nbd_watch_stop(struct nbd_watch *watch);

/* Any thread; also while it doesn't run. The descriptor stays open until it is removed. */
void nbd_watch_add(struct nbd_watch *watch, struct nbd_watched *watched, int fd);
void nbd_watch_remove(struct nbd_watch *watch, struct nbd_watched *watched);

/* Does it take too long? Asked so many ms after the last time. If that is longer than it was meant to
 * be, this process had stopped, and so had who is inside: that time doesn't count. */
bool nbd_watched_is_over(struct nbd_watched *watched, int64_t now, int64_t ms);

#endif
