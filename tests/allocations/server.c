/* A server that fences, one thread a connection. Its commands are run one at a time, under the lock:
 * so what an older connection has asked for has either been run or never is. */
#include <endian.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../lib/fail.h"
#include "../servers/nbd-wire.h"
#include "allocations.h"

#define CONNECTIONS 64
#define TEXT        256
#define PAGE        4096

enum { OPT_ABORT = 2, OPT_LIST = 3, OPT_GO = 7 };
enum { REP_SERVER = 2, REP_INFO = 3 };
#define REP_ERR_UNSUP UINT32_C(0x80000001)
enum { INFO_EXPORT = 0 };
enum { CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_ZERO = 6 };
enum { CMD_FLAG_FUA = 1 };
#define EXPORT_FLAGS                                                                               \
	(1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8) /* FLUSH FUA TRIM ZERO MULTI_CONN */
#define REQUEST_MAGIC 0x25609513
#define REPLY_MAGIC   0x67446698

struct request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, start;
	uint32_t len;
} __attribute__((packed));

struct reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

struct connection {
	pthread_t thread;
	int fd; /* -1: nobody's */
	bool over;
	uint64_t epoch;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t listening;
static int listener;
static struct connection all[CONNECTIONS]; /* each is used once */
static unsigned nr;
static uint8_t disk[DISK], stable[DISK]; /* much of it is zeroes, that take no memory */
static size_t disk_size;
static uint64_t newest;
static unsigned deaths, death_after; /* commands */

/* ---- the wire ---- */

static bool get(int fd, void *data, size_t len)
{
	return len == 0 || recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static bool put(int fd, const void *data, size_t len)
{
	ssize_t n;

	for (; len > 0; data = (const uint8_t *)data + n, len -= n)
		if ((n = send(fd, data, len, MSG_NOSIGNAL)) <= 0)
			return false;
	return true;
}

static bool answer_option(int fd, uint32_t option, uint32_t type, const void *data, size_t len)
{
	const struct nbd_option_reply reply = {
		.magic = htobe64(NBD_REP_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.len = htobe32(len),
	};

	return put(fd, &reply, sizeof(reply)) && put(fd, data, len);
}

/* ---- the handshake ---- */

static bool tell_export(int fd)
{
	char text[TEXT];
	uint32_t name_len = 0;
	int len;

	memcpy(text, &name_len, sizeof(name_len));
	pthread_mutex_lock(&lock);
	len = snprintf(text + sizeof(name_len), sizeof(text) - sizeof(name_len),
		       "ndio test instance=%032x fences", deaths + 1);
	pthread_mutex_unlock(&lock);
	return answer_option(fd, OPT_LIST, REP_SERVER, text, sizeof(name_len) + len) &&
	       answer_option(fd, OPT_LIST, NBD_REP_ACK, NULL, 0);
}

/* A newer epoch ends the older ones. */
static void join(struct connection *connection, const char *name)
{
	const char *session = strstr(name, ";ndio-session="),
		   *epoch = session ? strchr(session, '.') : NULL;

	pthread_mutex_lock(&lock);
	connection->epoch = epoch ? strtoull(epoch + 1, NULL, 16) : 0;
	if (connection->epoch > newest)
		newest = connection->epoch;
	for (unsigned i = 0; i < nr; i++)
		all[i].over |= all[i].epoch && all[i].epoch < newest;
	pthread_mutex_unlock(&lock);
}

static bool go(struct connection *connection, const char *data)
{
	const uint16_t type = htobe16(INFO_EXPORT), flags = htobe16(EXPORT_FLAGS);
	const uint64_t size = htobe64(disk_size);
	char info[sizeof(type) + sizeof(size) + sizeof(flags)];

	join(connection, data + sizeof(uint32_t));
	memcpy(info, &type, sizeof(type));
	memcpy(info + sizeof(type), &size, sizeof(size));
	memcpy(info + sizeof(type) + sizeof(size), &flags, sizeof(flags));
	return answer_option(connection->fd, OPT_GO, REP_INFO, info, sizeof(info)) &&
	       answer_option(connection->fd, OPT_GO, NBD_REP_ACK, NULL, 0);
}

static bool shake_hands(struct connection *connection)
{
	const struct nbd_greeting greeting = {
		.magic = htobe64(NBD_MAGIC),
		.opts_magic = htobe64(NBD_OPTS_MAGIC),
		.flags = htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	int fd = connection->fd;
	struct nbd_option option;
	uint32_t flags;

	if (!put(fd, &greeting, sizeof(greeting)) || !get(fd, &flags, sizeof(flags)))
		return false;
	while (get(fd, &option, sizeof(option))) {
		uint32_t what = be32toh(option.option), len = be32toh(option.len);
		char data[TEXT] = "";

		if (len >= sizeof(data) || !get(fd, data, len))
			return false;
		if (what == OPT_GO)
			return go(connection, data);
		if (what == OPT_ABORT ||
		    !(what == OPT_LIST ? tell_export(fd) :
					 answer_option(fd, what, REP_ERR_UNSUP, NULL, 0)))
			return false;
	}
	return false;
}

/* ---- commands ---- */

/* What is the same already stays as it is. */
static void copy_disk(uint8_t *to, const uint8_t *from)
{
	for (size_t at = 0, len; at < disk_size; at += len) {
		len = disk_size - at < PAGE ? disk_size - at : PAGE;
		if (memcmp(to + at, from + at, len) != 0)
			memcpy(to + at, from + at, len);
	}
}

/* With the lock held. */
static void die(void)
{
	copy_disk(disk, stable);
	deaths++;
	death_after = newest = 0;
	for (unsigned i = 0; i < nr; i++) {
		all[i].over = true;
		if (all[i].fd >= 0)
			shutdown(all[i].fd, SHUT_RDWR);
	}
}

/* With the lock held. */
static void run(const struct request *request, uint8_t *data)
{
	size_t start = be64toh(request->start), len = be32toh(request->len);

	if (start > disk_size || len > disk_size - start)
		fail("the server: a command goes beyond the disk's end");
	switch (be16toh(request->type)) {
	case CMD_READ:
		memcpy(data, disk + start, len);
		break;
	case CMD_WRITE:
		memcpy(disk + start, data, len);
		break;
	case CMD_ZERO:
		memset(disk + start, 0, len);
		break;
	case CMD_FLUSH:
		copy_disk(stable, disk);
		break;
	default:
		break;
	}
	if (be16toh(request->flags) & CMD_FLAG_FUA)
		memcpy(stable + start, disk + start, len);
}

/* False: the connection is over, perhaps by this command. */
static bool may_run(struct connection *connection, const struct request *request, uint8_t *data)
{
	bool runs;

	pthread_mutex_lock(&lock);
	if (death_after > 0 && --death_after == 0)
		die();
	runs = !connection->over;
	if (runs)
		run(request, data);
	pthread_mutex_unlock(&lock);
	return runs;
}

static void serve(struct connection *connection, uint8_t *data)
{
	struct request request;
	int fd = connection->fd;

	while (get(fd, &request, sizeof(request)) && be16toh(request.type) != CMD_DISC) {
		struct reply reply = {
			.magic = htobe32(REPLY_MAGIC),
			.cookie = request.cookie,
		};
		size_t len = be32toh(request.len);

		if (be32toh(request.magic) != REQUEST_MAGIC || len > DISK)
			fail("the server: that is no request");
		if (be16toh(request.type) == CMD_WRITE && !get(fd, data, len))
			return;
		if (!may_run(connection, &request, data) || !put(fd, &reply, sizeof(reply)))
			return;
		if (be16toh(request.type) == CMD_READ && !put(fd, data, len))
			return;
	}
}

static void *connection_main(void *opaque)
{
	struct connection *connection = opaque;
	uint8_t *data;
	int fd = connection->fd;

	memory_spare();
	data = malloc(DISK);
	if (!data)
		fail("the server: no memory");
	if (shake_hands(connection))
		serve(connection, data);
	free(data);
	pthread_mutex_lock(&lock);
	connection->fd = -1;
	pthread_mutex_unlock(&lock);
	close(fd);
	return NULL;
}

static void *listen_main(void *unused)
{
	int fd;

	(void)unused;
	memory_spare();
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&lock);
		if (nr == CONNECTIONS)
			fail("the server: too many connections");
		all[nr] = (struct connection){ .fd = fd };
		if (pthread_create(&all[nr].thread, NULL, connection_main, &all[nr]))
			fail("the server: no thread");
		nr++;
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* ---- for others ---- */

void server_start(const char *path, const uint8_t *image, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	disk_size = size;
	copy_disk(disk, image);
	copy_disk(stable, image);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, CONNECTIONS) < 0 ||
	    pthread_create(&listening, NULL, listen_main, NULL))
		fail("the server: it can't listen on %s", path);
}

void server_stop(void)
{
	shutdown(listener, SHUT_RDWR);
	pthread_join(listening, NULL);
	close(listener);
	server_die(0);
	for (unsigned i = 0; i < nr; i++)
		pthread_join(all[i].thread, NULL);
}

void server_die(unsigned commands)
{
	pthread_mutex_lock(&lock);
	death_after = commands;
	if (commands == 0)
		die();
	pthread_mutex_unlock(&lock);
}

unsigned server_deaths(void)
{
	unsigned count;

	pthread_mutex_lock(&lock);
	count = deaths;
	pthread_mutex_unlock(&lock);
	return count;
}
