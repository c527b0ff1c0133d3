/* garbage SOCKET COUNT: clients that nobody would want, one after the other: they say nothing,
 * or nonsense, before and after the handshake, or leave in the middle of a request. */
#include <arpa/inet.h>
#include <endian.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

#define REQUEST_MAGIC 0x25609513
#define OPTION_MAGIC  0x49484156454f5054

/* As the NBD protocol has it: big-endian. */
struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));

static const char *path;
static uint64_t state = 0x2545f4914f6cdd1d;

static int connect_socket(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		fail("garbage: the server doesn't answer");
	return fd;
}

/* The server may have closed already: that is its right. */
static void say(int fd, const void *data, size_t len)
{
	if (send(fd, data, len, MSG_NOSIGNAL) < 0)
		return;
}

static void say_noise(int fd)
{
	uint8_t noise[3000];
	size_t len = 1 + random_below(&state, sizeof(noise));

	for (size_t i = 0; i < len; i++)
		noise[i] = random_next(&state) >> 56;
	say(fd, noise, len);
}

static void leave_at_once(void)
{
	close(connect_socket());
}

static void noise_for_a_greeting(void)
{
	int fd = connect_socket();

	say_noise(fd);
	close(fd);
}

static void noise_for_an_option(void)
{
	int fd = connect_socket();
	uint32_t client_flags = htonl(3), option = htonl(random_below(&state, 12));
	uint64_t magic = htobe64(OPTION_MAGIC);
	uint8_t greeting[18];

	if (recv(fd, greeting, sizeof(greeting), MSG_WAITALL) != sizeof(greeting))
		fail("garbage: no greeting");
	say(fd, &client_flags, sizeof(client_flags));
	say(fd, &magic, sizeof(magic));
	say(fd, &option, sizeof(option));
	say_noise(fd);
	close(fd);
}

static struct nbd_handle *handshake(void)
{
	struct nbd_handle *nbd = nbd_create();

	if (!nbd || nbd_connect_unix(nbd, path) < 0)
		fail("garbage: %s", nbd_get_error());
	return nbd;
}

static void noise_for_a_request(void)
{
	struct nbd_handle *nbd = handshake();

	say_noise(nbd_aio_get_fd(nbd));
	nbd_close(nbd);
}

static void say_request(int fd, uint16_t type, uint16_t flags, uint64_t offset, uint32_t length)
{
	struct nbd_request request = {
		.magic = htonl(REQUEST_MAGIC),
		.flags = htons(flags),
		.type = htons(type),
		.cookie = random_next(&state),
		.offset = htobe64(offset),
		.length = htonl(length),
	};

	say(fd, &request, sizeof(request));
}

/* Whole headers, hardly one of which makes sense. */
static void impossible_requests(void)
{
	struct nbd_handle *nbd = handshake();

	for (unsigned i = 0; i < 20; i++)
		say_request(nbd_aio_get_fd(nbd), random_below(&state, 12),
			    random_next(&state) >> 48, random_next(&state),
			    random_next(&state) >> 32);
	nbd_close(nbd);
}

static void half_a_write(void)
{
	struct nbd_handle *nbd = handshake();

	say_request(nbd_aio_get_fd(nbd), 1, 0, 12345, 1 << 20);
	say_noise(nbd_aio_get_fd(nbd));
	nbd_close(nbd);
}

/* Replies of megabytes that nobody fetches. */
static void unread_replies(void)
{
	struct nbd_handle *nbd = handshake();

	for (unsigned i = 0; i < 8; i++)
		say_request(nbd_aio_get_fd(nbd), 0, 0, i * 4097, 2 << 20);
	nbd_close(nbd);
}

int main(int argc, char **argv)
{
	static void (*const kinds[])(void) = {
		leave_at_once,       noise_for_a_greeting, noise_for_an_option, noise_for_a_request,
		impossible_requests, half_a_write,         unread_replies,
	};
	const unsigned nr_kinds = sizeof(kinds) / sizeof(kinds[0]);
	unsigned long count;

	if (argc != 3)
		fail("usage: garbage SOCKET COUNT");
	path = argv[1];
	count = strtoul(argv[2], NULL, 0);
	for (unsigned long i = 0; i < count; i++)
		kinds[i % nr_kinds]();
	printf("%lu clients\n", count);
	return 0;
}
