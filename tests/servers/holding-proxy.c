/* holding-proxy [-u SOCKET | -p PORT-FILE] -i PID-FILE BACKEND-SOCKET: a network between clients and
 * a server, which does what networks do, when it is told to. Lines on stdin, an answer on stdout to
 * each, "ok":
 *
 *   hold BYTES  what the clients of now send is kept; the answer comes when so much is
 *   part        reset the clients' ends of those: for them it is over, for the server it isn't
 *   release     deliver what is kept; the answer comes when the server has taken all of those that
 *               are parted, which stay open: servers needn't do what a client doesn't wait for
 *   close       close those; the answer comes when the server has, too
 *   cut         reset both ends of all
 *   lose        the connections of now transport nothing any more, and nobody is told
 *   drop        a cable is pulled: nothing moves, connections aren't answered
 *   forward     and plugged in: all goes on where it was
 *   end         the proxy ends, as with the end of the file, without an answer
 *
 * One thread. Each connection has two buffers, of BUFFER bytes; of what is kept, HELD. With PORT-FILE it
 * listens on a port of 127.0.0.1 that the kernel picks. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../lib/fail.h"

#define BUFFER          (256 * 1024)
#define HELD            (16 * 1024 * 1024)
#define MAX_CONNECTIONS 128

enum state {
	FORWARD,
	HOLD,
	PARTED,   /* held, and without a client */
	RELEASED, /* to be delivered, and kept open */
	CLOSED,   /* until the server closes it, too */
	LOST,
};

/* Bytes on their way. */
struct buffer {
	uint8_t *data;
	size_t start, len, room;
};

struct connection {
	enum state state;
	int client, server; /* -1: none */
	struct buffer up, down;
	bool closing; /* one end has gone: what is left goes to the other, then it is closed */
};

static struct connection all[MAX_CONNECTIONS];
static unsigned nr;
static const char *backend;
static int listener;
static bool dropped;
static size_t hold_until; /* bytes, and then an answer is due; or 0 */
static bool releasing;    /* an answer is due when all that is RELEASED is delivered */
static bool closing;      /* or nothing is CLOSED */

/* ---- buffers ---- */

static void buffer_open(struct buffer *buffer, size_t room)
{
	*buffer = (struct buffer){ .data = malloc(room), .room = room };
	if (!buffer->data)
		fail("holding-proxy: no memory");
}

static void buffer_enlarge(struct buffer *buffer, size_t room)
{
	struct buffer larger;

	buffer_open(&larger, room);
	memcpy(larger.data, buffer->data + buffer->start, buffer->len);
	larger.len = buffer->len;
	free(buffer->data);
	*buffer = larger;
}

/* Bytes, 0 at the end, or -1. */
static ssize_t buffer_fill(struct buffer *buffer, int fd)
{
	ssize_t n;

	memmove(buffer->data, buffer->data + buffer->start, buffer->len);
	buffer->start = 0;
	n = recv(fd, buffer->data + buffer->len, buffer->room - buffer->len, MSG_DONTWAIT);
	if (n > 0)
		buffer->len += n;
	return n;
}

static ssize_t buffer_drain(struct buffer *buffer, int fd)
{
	ssize_t n =
		send(fd, buffer->data + buffer->start, buffer->len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0) {
		buffer->start += n;
		buffer->len -= n;
	}
	return n;
}

static bool is_over(ssize_t n)
{
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* ---- connections ---- */

static void reset(int *fd)
{
	const struct linger at_once = { .l_onoff = 1 };

	if (*fd < 0)
		return;
	setsockopt(*fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(*fd);
	*fd = -1;
}

/* The last one takes its place. */
static void forget(struct connection *connection)
{
	if (connection->client >= 0)
		close(connection->client);
	if (connection->server >= 0)
		close(connection->server);
	free(connection->up.data);
	free(connection->down.data);
	*connection = all[--nr];
}

static int connect_backend(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("holding-proxy: socket: %s", strerror(errno));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", backend);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Without a server it ends at once. */
static void add(void)
{
	struct connection *connection = &all[nr];
	int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
	int server = client < 0 ? -1 : connect_backend();

	if (client < 0)
		return;
	if (server < 0) {
		reset(&client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*connection = (struct connection){ .client = client, .server = server };
	buffer_open(&connection->up, BUFFER);
	buffer_open(&connection->down, BUFFER);
	nr++;
}

/* ---- moving bytes ---- */

static bool reads_client(const struct connection *c)
{
	return c->client >= 0 && !c->closing && c->up.len < c->up.room;
}

static bool reads_server(const struct connection *c)
{
	return !c->closing && c->down.len < c->down.room;
}

static bool writes_server(const struct connection *c)
{
	return c->up.len > 0 && (c->state == FORWARD || c->state == RELEASED);
}

static bool writes_client(const struct connection *c)
{
	return c->client >= 0 && c->down.len > 0;
}

static void client_gone(struct connection *c)
{
	if (c->state == HOLD) {
		reset(&c->client);
		c->state = PARTED;
		c->down.len = 0;
	} else {
		c->closing = true;
	}
}

static void move_client(struct connection *c, short events)
{
	if ((events & (POLLIN | POLLHUP | POLLERR)) && reads_client(c) &&
	    is_over(buffer_fill(&c->up, c->client)))
		client_gone(c);
	if ((events & (POLLOUT | POLLERR)) && writes_client(c) &&
	    is_over(buffer_drain(&c->down, c->client)))
		client_gone(c);
	if (c->state == LOST)
		c->up.len = 0;
}

static void move_server(struct connection *c, short events)
{
	if ((events & (POLLIN | POLLHUP | POLLERR)) && reads_server(c) &&
	    is_over(buffer_fill(&c->down, c->server)))
		c->closing = true;
	if ((events & (POLLOUT | POLLERR)) && writes_server(c) &&
	    is_over(buffer_drain(&c->up, c->server)))
		c->closing = true;
	if (c->state != FORWARD && c->state != HOLD)
		c->down.len = 0;
}

/* What is left goes to whom it is for, if he takes it. */
static bool is_finished(struct connection *c)
{
	if (!c->closing)
		return false;
	if (c->state == FORWARD && c->up.len)
		send(c->server, c->up.data + c->up.start, c->up.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (c->state == FORWARD && c->down.len)
		send(c->client, c->down.data + c->down.start, c->down.len,
		     MSG_DONTWAIT | MSG_NOSIGNAL);
	return true;
}

static size_t held_bytes(void)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == HOLD || all[i].state == PARTED)
			bytes += all[i].up.len;
	return bytes;
}

static bool is_delivered(void)
{
	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == RELEASED && all[i].up.len)
			return false;
	return true;
}

static bool is_closed(void)
{
	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == CLOSED)
			return false;
	return true;
}

/* ---- commands ---- */

static void answer(void)
{
	puts("ok");
	fflush(stdout);
}

static void hold(const char *bytes)
{
	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == FORWARD) {
			all[i].state = HOLD;
			buffer_enlarge(&all[i].up, HELD);
		}
	hold_until = strtoull(bytes, NULL, 0);
	if (!hold_until)
		answer();
}

static void part(void)
{
	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == HOLD)
			client_gone(&all[i]);
	answer();
}

static void release(void)
{
	for (unsigned i = 0; i < nr; i++) {
		if (all[i].state == HOLD)
			all[i].state = FORWARD;
		else if (all[i].state == PARTED)
			all[i].state = RELEASED;
	}
	releasing = true;
}

static void close_released(void)
{
	for (unsigned i = 0; i < nr; i++)
		if (all[i].state == RELEASED) {
			all[i].state = CLOSED;
			shutdown(all[i].server, SHUT_WR);
		}
	closing = true;
}

static void cut(void)
{
	while (nr > 0) {
		reset(&all[nr - 1].client);
		reset(&all[nr - 1].server);
		forget(&all[nr - 1]);
	}
	answer();
}

static void lose(void)
{
	for (unsigned i = 0; i < nr; i++)
		all[i].state = LOST;
	answer();
}

static void obey(const char *line)
{
	if (strncmp(line, "hold ", 5) == 0) {
		hold(line + 5);
	} else if (strcmp(line, "part") == 0) {
		part();
	} else if (strcmp(line, "release") == 0) {
		release();
	} else if (strcmp(line, "close") == 0) {
		close_released();
	} else if (strcmp(line, "cut") == 0) {
		cut();
	} else if (strcmp(line, "lose") == 0) {
		lose();
	} else if (strcmp(line, "end") == 0) {
		exit(0);
	} else if (strcmp(line, "drop") == 0 || strcmp(line, "forward") == 0) {
		dropped = line[0] == 'd';
		answer();
	} else {
		fail("holding-proxy: %s: no command", line);
	}
}

/* Whole lines; the end of all ends the proxy. */
static void read_commands(void)
{
	static char text[1000];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, text + len, sizeof(text) - 1 - len);
	char *end;

	if (n <= 0)
		exit(0);
	len += n;
	text[len] = '\0';
	while ((end = strchr(text, '\n'))) {
		*end = '\0';
		obey(text);
		len -= end + 1 - text;
		memmove(text, end + 1, len + 1);
	}
}

static void answer_if_due(void)
{
	if (hold_until && held_bytes() >= hold_until) {
		hold_until = 0;
		answer();
	}
	if (releasing && is_delivered()) {
		releasing = false;
		answer();
	}
	if (closing && is_closed()) {
		closing = false;
		answer();
	}
}

/* ---- the loop ---- */

static void want(struct pollfd *fd, int number, bool reads, bool writes)
{
	fd->fd = dropped || (!reads && !writes) ? -1 : number;
	fd->events = (reads ? POLLIN : 0) | (writes ? POLLOUT : 0);
	fd->revents = 0;
}

static void run_once(void)
{
	struct pollfd fds[2 + 2 * MAX_CONNECTIONS];
	unsigned polled = nr;

	fds[0] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	want(&fds[1], listener, nr < MAX_CONNECTIONS, false);
	for (unsigned i = 0; i < nr; i++) {
		want(&fds[2 + 2 * i], all[i].client, reads_client(&all[i]), writes_client(&all[i]));
		want(&fds[3 + 2 * i], all[i].server, reads_server(&all[i]), writes_server(&all[i]));
	}
	if (poll(fds, 2 + 2 * nr, -1) < 0 && errno != EINTR)
		fail("holding-proxy: poll: %s", strerror(errno));
	/* From the end: whoever goes is replaced by one that was looked at. */
	for (unsigned i = polled; i-- > 0;) {
		move_client(&all[i], fds[2 + 2 * i].revents);
		move_server(&all[i], fds[3 + 2 * i].revents);
		if (is_finished(&all[i]))
			forget(&all[i]);
	}
	if (fds[1].revents)
		add();
	if (fds[0].revents)
		read_commands();
	answer_if_due();
}

/* ---- the start ---- */

static void write_number(const char *path, unsigned long number)
{
	FILE *file = fopen(path, "w");

	if (!file || fprintf(file, "%lu\n", number) < 0 || fclose(file) != 0)
		fail("holding-proxy: %s: %s", path, strerror(errno));
}

static void listen_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail("holding-proxy: %s: %s", path, strerror(errno));
}

static void listen_port(const char *port_file)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(address);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, len) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &len) < 0)
		fail("holding-proxy: no port: %s", strerror(errno));
	write_number(port_file, ntohs(address.sin_port));
}

int main(int argc, char **argv)
{
	const char *pid_file = NULL;
	int option;

	while ((option = getopt(argc, argv, "i:u:p:")) != -1) {
		if (option == 'i')
			pid_file = optarg;
		else if (option == 'u')
			listen_unix(optarg);
		else if (option == 'p')
			listen_port(optarg);
		else
			fail("holding-proxy: see the start of holding-proxy.c");
	}
	if (optind + 1 != argc || !pid_file || listener <= 0)
		fail("holding-proxy: see the start of holding-proxy.c");
	backend = argv[optind];
	if (listen(listener, MAX_CONNECTIONS) < 0)
		fail("holding-proxy: listen: %s", strerror(errno));
	write_number(pid_file, getpid());
	for (;;)
		run_once();
}
