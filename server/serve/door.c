/* A guest is a client whose handshake isn't over. It costs memory of a fixed size, and time until
 * its patience ends. There are GUESTS at the most: one more, and one that has said nothing goes, or if
 * there is none, the one that has been here longest; so that whoever opens connections and says nothing
 * keeps nobody out. Nobody goes before it has had the time to say something. It takes a place among
 * those that are served only when it has said what it wants. Where all places are taken it waits for one
 * then, and the next isn't taken in: it waits in the listener's queue.
 *
 *     accept -> greeting -> options ... -> OPEN: place, fence -> READY: a connection of a loop's
 *
 * One thread, which never waits for a guest. */
#include "door.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "handshake.h"
#include "say.h"

#define GUESTS       64
#define MAX_OPTIONS  128 /* in one handshake, */
#define EACH_EXPORT  8   /* and so many more for each export: nbdinfo --list asks about all */
#define IDLE_S       60  /* seconds of silence before a client is looked for, */
#define PROBE_S      10  /* between looks, */
#define PROBES       6   /* and how many */
#define EVENTS       64
#define LOOK_MS      10    /* between looks whether a fence is ready, or a place is free again */
#define PAUSE_MS     100   /* without descriptors or memory for another connection */
#define TELL_MS      10000 /* between messages of that */
#define SPARED_MS    100   /* so long nobody goes for others who has said nothing yet */
#define ACCEPTS      64    /* before those that are here have their turn */
#define TELL_REST_MS 1000  /* until how many messages were left out is told, too */
#define NAME_SAID    200   /* bytes of a name that there isn't */
#define GUESTS_NAME  "clients"

enum place {
	ASKS,    /* it hasn't said what it wants */
	WAITS,   /* for a place, however long */
	OPENING, /* it has one, and the fence isn't ready */
	OPENED,
	PLACES,
};

struct guest {
	struct door *door;
	struct guest *next, *before; /* the next is younger */
	struct stream stream;        /* fd is -1: the place is free */
	int64_t since, until;        /* times of clock_ms() */
	uint32_t events;             /* of epoll(7) */
	struct fence_handle *fence;  /* or NULL */
	enum place place;
	enum handshake_next step;
	size_t in_end;
	uint8_t in[CONNECTION_AHEAD];
	char peer[PEER_NAME];
	struct handshake handshake;
};

struct door {
	struct door_options options;
	int epoll_fd, stop_fd;
	bool listens;           /* epoll is told of the listeners */
	int64_t paused_until;   /* no descriptors: don't listen before */
	int64_t silent_until;   /* that was told */
	struct teller teller;   /* of guests */
	unsigned nr_in[PLACES]; /* guests */
	struct guest *oldest, *youngest;
	struct guest *idle;
	struct guest guests[GUESTS];
};

/* ---- exports, as the handshake asks for them ---- */

static const struct export_facts *list_export(void *opaque, size_t i)
{
	const struct guest *guest = opaque;
	const struct exports *exports = guest->door->options.exports;

	return i < exports->count ? exports_tell(exports->all[i]) : NULL;
}

static const struct export_facts *door_find_export(void *opaque, const char *name)
{
	struct guest *guest = opaque;
	struct door *door = guest->door;
	struct export *export = exports_find(door->options.exports, name);

	if (export)
		return exports_tell(export);
	teller_say(&door->teller, GUESTS_NAME, "%s: it asks for \"%.*s\": there is no such export",
		   guest->peer, (int)utf8_fit(name, NAME_SAID), name);
	return NULL;
}

static struct export *export_of(const struct export_facts *facts)
{
	return (struct export *)((char *)facts - offsetof(struct export, facts));
}

/* ---- guests come and go ---- */

/* The place alone: what was the guest's has gone, or has been handed on. */
static void free_guest(struct door *door, struct guest *guest)
{
	*(guest->before ? &guest->before->next : &door->oldest) = guest->next;
	*(guest->next ? &guest->next->before : &door->youngest) = guest->before;
	guest->stream.fd = -1;
	guest->next = door->idle;
	door->idle = guest;
	door->nr_in[guest->place]--;
}

static void send_away(struct door *door, struct guest *guest, const char *why)
{
	if (why) {
		teller_say(&door->teller, GUESTS_NAME, "%s: %s", guest->peer, why);
		door_meter_failed(door->options.meter);
	}
	if (guest->fence)
		fence_close(guest->fence);
	stream_close(&guest->stream, false); /* epoll forgets it */
	free_guest(door, guest);
}

static void name_peer(int fd, char name[PEER_NAME])
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	struct ucred who;
	char host[64], port[16];

	if (getpeername(fd, (struct sockaddr *)&address, &len) == 0 &&
	    address.ss_family != AF_UNIX &&
	    getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
		snprintf(name, PEER_NAME, "client %s port %s", host, port);
		return;
	}
	len = sizeof(who);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0)
		snprintf(name, PEER_NAME, "client process %d of user %u", (int)who.pid, who.uid);
	else
		snprintf(name, PEER_NAME, "a client");
}

/* A client that is gone, and whose machine doesn't say so, isn't kept for hours: it would have its place
 * among those that are allowed. Of a Unix socket most of it fails. */
static void set_socket(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },       { SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S }, { IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, PROBES },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			   sizeof(options[i].value));
}

/* Who goes for another. NULL: nobody does now. */
static struct guest *find_leaver(const struct door *door)
{
	struct guest *first = NULL;

	for (struct guest *guest = door->oldest; guest; guest = guest->next) {
		if (guest->place != ASKS)
			continue;
		if (guest->handshake.state == HANDSHAKE_AT_FLAGS)
			return clock_ms() - guest->since >= SPARED_MS ? guest : NULL;
		first = first ? first : guest;
	}
	return first;
}

/* NULL: it couldn't be watched. */
static struct guest *let_in(struct door *door, int fd)
{
	struct handshake_options options = {
		.list = list_export,
		.find = door_find_export,
		.tls_offered = door->options.tls,
		.tls_required = door->options.tls && !door->options.tls_optional,
		.max_options = MAX_OPTIONS + EACH_EXPORT * door->options.exports->count,
	};
	struct epoll_event event = { .events = EPOLLIN };
	struct guest *guest;

	if (!door->idle)
		send_away(door, find_leaver(door),
			  "it hasn't said what it wants, and others come: its connection is ended");
	options.opaque = guest = door->idle;
	door->idle = guest->next;
	guest->door = door;
	guest->stream = (struct stream){ .fd = fd };
	guest->since = clock_ms();
	guest->until = guest->since + door->options.patience;
	guest->events = EPOLLIN;
	guest->fence = NULL;
	guest->place = ASKS;
	door->nr_in[ASKS]++;
	guest->step = HANDSHAKE_MORE;
	guest->in_end = 0;
	guest->next = NULL;
	guest->before = door->youngest;
	*(door->youngest ? &door->youngest->next : &door->oldest) = guest;
	door->youngest = guest;
	name_peer(fd, guest->peer);
	set_socket(fd);
	handshake_begin(&guest->handshake, &options);
	event.data.ptr = guest;
	if (epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		return guest;
	send_away(door, guest, strerror(errno));
	return NULL;
}

/* ---- places ---- */

static bool has_place(const struct door *door)
{
	unsigned count = door->nr_in[OPENING] + door->nr_in[OPENED];

	for (unsigned i = 0; i < door->options.exports->count; i++)
		count += loops_connections(door->options.exports->all[i]->loops);
	return count < door->options.max_connections;
}

static void set_place(struct guest *guest, enum place place)
{
	guest->door->nr_in[guest->place]--;
	guest->place = place;
	guest->door->nr_in[place]++;
}

/* False: it waits, behind those that waited before. */
static bool take_place(struct guest *guest)
{
	const struct door *door = guest->door;

	if (guest->place >= OPENING)
		return true;
	if (!has_place(door) || (guest->place == ASKS && door->nr_in[WAITS])) {
		set_place(guest, WAITS);
		return false;
	}
	if (guest->place == WAITS)
		guest->until = clock_ms() + door->options.patience;
	set_place(guest, OPENING);
	return true;
}

/* ---- what a guest says ---- */

/* Or sends it away. */
static void hand_on_guest(struct door *door, struct guest *guest)
{
	const struct transmission *wire = &guest->handshake.transmission;
	struct export *export = export_of(wire->facts);
	struct connection_options options = {
		.stream = guest->stream,
		.volume = export->volume,
		.wire = *wire,
		.fence = guest->fence,
		.ahead = guest->in,
		.ahead_len = guest->in_end,
	};
	struct connection *connection;

	memcpy(options.peer, guest->peer, sizeof(options.peer));
	epoll_ctl(door->epoll_fd, EPOLL_CTL_DEL, guest->stream.fd, NULL);
	guest->fence = NULL;
	if (connection_open(&options, &connection) < 0)
		teller_say(&door->teller, GUESTS_NAME, "%s: no memory for its connection",
			   guest->peer);
	else
		loops_add(export->loops, connection);
	OPENSSL_cleanse(guest->in, guest->in_end); /* they may be a write's */
	free_guest(door, guest);
}

/* 0, or a negative errno; -EAGAIN: what its older connections run hasn't ended. */
static int take_fence(struct guest *guest, struct error *err)
{
	const char *name = guest->handshake.name;
	int ret;

	if (!guest->fence)
		ret = fence_begin(&export_of(guest->handshake.transmission.facts)->fences, name,
				  &guest->fence, err);
	if (!guest->fence)
		return ret;
	ret = fence_ready(guest->fence, false, err);
	if (ret < 0 && ret != -EAGAIN) {
		fence_close(guest->fence);
		guest->fence = NULL;
	}
	return ret;
}

/* False: not yet. */
static bool open_guest_export(struct door *door, struct guest *guest)
{
	struct error err;
	int ret;

	if (!take_place(guest))
		return false;
	ret = take_fence(guest, &err);
	if (ret == -EAGAIN)
		return false;
	set_place(guest, ret < 0 ? ASKS : OPENED);
	if (ret < 0)
		teller_say(&door->teller, GUESTS_NAME, "%s: %s", guest->peer, err.text);
	guest->step = handshake_opened(&guest->handshake, -ret, ret < 0 ? err.text : NULL);
	return true;
}

/* True: some of it was sent. */
static bool send_output(struct guest *guest, bool *broken)
{
	size_t len;
	const uint8_t *output = handshake_output(&guest->handshake, &len);
	const struct iovec iov = { (void *)output, len };
	ssize_t n = stream_send(&guest->stream, &iov, 1);

	if (n > 0)
		handshake_sent(&guest->handshake, n);
	*broken = n < 0 && errno != EAGAIN && errno != EINTR;
	return n > 0;
}

/* True: there is something. */
static bool guest_receive(struct guest *guest, bool *broken)
{
	const struct iovec iov = { guest->in + guest->in_end, sizeof(guest->in) - guest->in_end };
	ssize_t n = stream_receive(&guest->stream, &iov, 1);

	if (n > 0)
		guest->in_end += n;
	*broken = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	return n > 0;
}

static void feed(struct guest *guest)
{
	size_t used;

	guest->step = handshake_feed(&guest->handshake, guest->in, guest->in_end, &used);
	memmove(guest->in, guest->in + used, guest->in_end - used);
	guest->in_end -= used;
}

static void watch_guest(struct door *door, struct guest *guest, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = guest };

	if (events == guest->events)
		return;
	guest->events = events;
	epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, guest->stream.fd, &event);
}

/* True: TLS is up. False: it isn't yet, or not for this client, who is sent away then. */
static bool secure(struct door *door, struct guest *guest, bool *gone)
{
	struct stream *stream = &guest->stream;
	char text[512], why[560];
	uint32_t events;
	int ret = -1;

	if (!stream->ssl && guest->in_end == 0)
		stream->ssl = tls_server_connection(door->options.tls, stream->fd);
	if (stream->ssl)
		ret = stream_shake_hands(stream, &events);
	if (ret == 1) {
		door_meter_tls(door->options.meter, SSL_get_version(stream->ssl),
			       SSL_get_cipher_name(stream->ssl));
		guest->step = HANDSHAKE_MORE;
		handshake_secured(&guest->handshake);
		return true;
	}
	if (ret == 0) {
		watch_guest(door, guest, events);
		return false;
	}
	snprintf(why, sizeof(why), "no TLS with it: %s",
		 tls_server_reason(door->options.tls, text, sizeof(text)));
	send_away(door, guest, why);
	*gone = true;
	return false;
}

/* As far as it goes now. */
static void guest_go_on(struct door *door, struct guest *guest)
{
	struct handshake *handshake = &guest->handshake;
	bool broken = false, goes_on = true, gone = false;
	size_t to_send;

	while (goes_on && !broken) {
		handshake_output(handshake, &to_send);
		if (to_send) {
			goes_on = send_output(guest, &broken);
			watch_guest(door, guest, goes_on ? EPOLLIN : EPOLLOUT);
		} else if (guest->step == HANDSHAKE_READY) {
			hand_on_guest(door, guest);
			return;
		} else if (guest->step == HANDSHAKE_OVER) {
			send_away(door, guest, handshake->why);
			return;
		} else if (guest->step == HANDSHAKE_TLS) {
			goes_on = secure(door, guest, &gone);
			if (gone)
				return;
		} else if (guest->step == HANDSHAKE_OPEN) {
			goes_on = open_guest_export(door, guest);
			/* What it has sent is for later; that it has gone is for now. */
			watch_guest(door, guest,
				    goes_on               ? (uint32_t)EPOLLIN :
				    guest->place == WAITS ? (uint32_t)EPOLLRDHUP :
							    0);
		} else if (guest->in_end) {
			feed(guest);
		} else {
			watch_guest(door, guest, EPOLLIN);
			goes_on = guest_receive(guest, &broken);
		}
	}
	if (broken)
		send_away(door, guest, NULL);
}

/* ---- listeners ---- */

static bool door_has_room(const struct door *door)
{
	return (door->idle || find_leaver(door)) && door->nr_in[WAITS] == 0 && has_place(door);
}

/* Where there are no descriptors: who has said nothing goes for who comes. */
static bool send_silent_away(struct door *door)
{
	struct guest *guest = find_leaver(door);

	if (!guest || guest->handshake.state != HANDSHAKE_AT_FLAGS)
		return false;
	send_away(door, guest, "it says nothing, and others come: its connection is ended");
	return true;
}

static void pause_listening(struct door *door, const struct listener *listener, int error)
{
	int64_t now = clock_ms();

	door->paused_until = now + PAUSE_MS;
	if (now < door->silent_until)
		return;
	door->silent_until = now + TELL_MS;
	say("%s: can't take in a client: %s", listener->name, strerror(error));
}

static void accept_some(struct door *door, const struct listener *listener)
{
	for (unsigned i = 0; i < ACCEPTS && door_has_room(door); i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			struct guest *guest = let_in(door, fd);

			if (guest)
				guest_go_on(door, guest); /* it waits for the greeting */
			continue;
		}
		if (errno == EMFILE && send_silent_away(door))
			continue;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			pause_listening(door, listener, errno);
			return;
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

/* Is anybody to be taken in now? */
static void mind_listeners(struct door *door)
{
	bool listens = door_has_room(door) && clock_ms() >= door->paused_until;

	if (listens == door->listens)
		return;
	door->listens = listens;
	for (unsigned i = 0; i < door->options.nr_listeners; i++) {
		const struct listener *listener = &door->options.listeners[i];
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = (void *)listener };

		epoll_ctl(door->epoll_fd, listens ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener->fd,
			  &event);
	}
}

static bool is_held(const struct guest *guest)
{
	return guest->place == WAITS || guest->place == OPENING;
}

/* Those whose time is up, and those that wait for a place or a fence. */
static void look_at_guests(struct door *door)
{
	static const char *const why[PLACES] = {
		[ASKS] = "its handshake takes too long: its connection is ended",
		[OPENING] = "what it asked for before takes too long: its connection is ended",
		[OPENED] = "its handshake takes too long: its connection is ended",
	};
	int64_t now = clock_ms();
	struct guest *guest, *next;

	for (guest = door->oldest; guest; guest = next) {
		next = guest->next;
		if (guest->place != WAITS && guest->until <= now)
			send_away(door, guest, why[guest->place]);
		else if (is_held(guest))
			guest_go_on(door, guest);
	}
	teller_go_on(&door->teller, GUESTS_NAME, false);
}

/* ---- the whole ---- */

static int time_to_sleep(const struct door *door)
{
	int64_t until = INT64_MAX, left;

	if (door->nr_in[WAITS] || door->nr_in[OPENING] || !door->listens)
		return LOOK_MS;
	for (const struct guest *guest = door->oldest; guest; guest = guest->next)
		until = guest->until < until ? guest->until : until;
	if (until == INT64_MAX)
		return teller_has_more(&door->teller) ? TELL_REST_MS : -1;
	left = until - clock_ms();
	if (teller_has_more(&door->teller) && left > TELL_REST_MS)
		return TELL_REST_MS;
	return left < 0 ? 0 : (int)left;
}

static bool is_listener(const struct door *door, const void *what)
{
	const struct listener *listener = what;

	return listener >= door->options.listeners &&
	       listener < door->options.listeners + door->options.nr_listeners;
}

/* False: it shall end. */
static bool door_round(struct door *door)
{
	struct epoll_event events[EVENTS];
	int count;

	mind_listeners(door);
	count = epoll_wait(door->epoll_fd, events, EVENTS, time_to_sleep(door));
	/* Guests first: whom the accepting of others sends away mustn't be among them. */
	for (int i = 0; i < count; i++) {
		struct guest *guest = events[i].data.ptr;

		if (!guest || is_listener(door, guest) || guest->stream.fd < 0)
			continue;
		if (is_held(guest)) /* it is watched for its end alone */
			send_away(door, guest, NULL);
		else
			guest_go_on(door, guest);
	}
	for (int i = 0; i < count; i++) {
		if (!events[i].data.ptr)
			return false;
		if (is_listener(door, events[i].data.ptr))
			accept_some(door, events[i].data.ptr);
	}
	look_at_guests(door);
	return true;
}

int door_run(const struct door_options *options, int stop_fd, struct error *err)
{
	struct door *door = calloc(1, sizeof(*door));
	struct epoll_event event = { .events = EPOLLIN };
	int ret = 0;

	if (!door)
		return error_set(err, ENOMEM, "no memory for handshakes");
	door->options = *options;
	for (int i = 0; i < GUESTS; i++) {
		door->guests[i].stream.fd = -1;
		door->guests[i].next = door->idle;
		door->idle = &door->guests[i];
	}
	door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (door->epoll_fd < 0 || epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, stop_fd, &event) < 0)
		ret = error_set(err, errno, "no descriptor to watch clients: %s", strerror(errno));
	while (ret == 0 && door_round(door))
		;
	while (door->oldest)
		send_away(door, door->oldest, NULL);
	teller_go_on(&door->teller, GUESTS_NAME, true);
	if (door->epoll_fd >= 0)
		close(door->epoll_fd);
	free(door);
	return ret;
}
