/* It neither listens nor has a thread: so a client is accepted when there is room, and is cut off when
 * its time is up, by shutting its socket down; libmicrohttpd sees that and closes it. */
#include "metrics/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define CLIENTS     8
#define MEMORY      ((size_t)8192) /* bytes, for what a client sends */
#define PATIENCE_MS 10000

struct client {
	int fd; /* -1: the place is free */
	int64_t until;
};

struct http {
	struct MHD_Daemon *daemon;
	http_text_fn *text;
	void *opaque;
	struct client clients[CLIENTS];
};

/* ---- answers ---- */

/* Takes over the text. One connection, one answer: nobody stays. */
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
			     char *text, size_t len)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result ret = MHD_NO;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) &&
	    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close") &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
	     MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD")))
		ret = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return ret;
}

static enum MHD_Result http_refuse(struct MHD_Connection *connection, unsigned status,
				   const char *why)
{
	char *text = strdup(why);

	return text ? reply(connection, status, "text/plain", text, strlen(text)) : MHD_NO;
}

/* The older one only for who asks for that, and not for the newer. */
static enum exposition_format choose_format(struct MHD_Connection *connection)
{
	const char *accept =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);

	return accept && strcasestr(accept, "text/plain") &&
			       !strcasestr(accept, "application/openmetrics-text") ?
		       EXPOSITION_PROMETHEUS :
		       EXPOSITION_OPENMETRICS;
}

static enum MHD_Result http_answer(void *opaque, struct MHD_Connection *connection, const char *url,
				   const char *method, const char *version, const char *upload,
				   size_t *upload_size, void **request)
{
	struct http *http = opaque;
	enum exposition_format format = choose_format(connection);
	char *text;
	size_t len;

	(void)version;
	(void)upload;
	(void)upload_size;
	(void)request;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return http_refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (strcmp(url, "/metrics") != 0)
		return http_refuse(connection, MHD_HTTP_NOT_FOUND, "there is only /metrics\n");
	text = http->text(http->opaque, format, &len);
	return text ? reply(connection, MHD_HTTP_OK, exposition_types[format], text, len) : MHD_NO;
}

/* ---- clients come and go ---- */

static struct client *find_client(struct http *http, int fd)
{
	for (size_t i = 0; i < CLIENTS; i++)
		if (http->clients[i].fd == fd)
			return &http->clients[i];
	return NULL;
}

static struct client *oldest(struct http *http)
{
	struct client *found = NULL;

	for (size_t i = 0; i < CLIENTS; i++)
		if (http->clients[i].fd >= 0 && (!found || http->clients[i].until < found->until))
			found = &http->clients[i];
	return found;
}

/* Told of each that is about to be closed. */
static void client_closing(void *opaque, struct MHD_Connection *connection, void **socket_context,
			   enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct client *client = info ? find_client(opaque, info->connect_fd) : NULL;

	(void)socket_context;
	if (client && code == MHD_CONNECTION_NOTIFY_CLOSED)
		client->fd = -1;
}

static void cut_off(struct http *http, struct client *client)
{
	shutdown(client->fd, SHUT_RDWR);
	MHD_run(http->daemon);
}

void http_take(struct http *http, int fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	struct client *client = find_client(http, -1);

	if (!client) {
		cut_off(http, oldest(http));
		client = find_client(http, -1);
	}
	if (!client || getpeername(fd, (struct sockaddr *)&address, &len) < 0) {
		close(fd);
		return;
	}
	/* Before: the call may close it. */
	*client = (struct client){ .fd = fd, .until = clock_ms() + PATIENCE_MS };
	if (!MHD_add_connection(http->daemon, fd, (struct sockaddr *)&address, len))
		client->fd = -1;
	MHD_run(http->daemon);
}

/* ---- rounds ---- */

int http_fd(const struct http *http)
{
	return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

int http_timeout(const struct http *http)
{
	struct client *first = oldest((struct http *)http);
	int64_t left = first ? first->until - clock_ms() : -1;
	MHD_UNSIGNED_LONG_LONG soon;

	if (first && left < 0)
		left = 0;
	if (MHD_get_timeout(http->daemon, &soon) && (left < 0 || soon < (uint64_t)left))
		left = soon;
	return left;
}

void http_go_on(struct http *http)
{
	struct client *first = oldest(http);

	MHD_run(http->daemon);
	for (size_t i = 0; i < CLIENTS && (first = oldest(http)) && first->until <= clock_ms(); i++)
		cut_off(http, first);
}

/* ---- opening and closing ---- */

int http_open(http_text_fn *text, void *opaque, struct http **result, struct error *err)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http)
		return error_set(err, ENOMEM, "no memory for metrics");
	http->text = text;
	http->opaque = opaque;
	for (size_t i = 0; i < CLIENTS; i++)
		http->clients[i].fd = -1;
	http->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, http_answer, http,
		MHD_OPTION_NOTIFY_CONNECTION, client_closing, http, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)CLIENTS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY, MHD_OPTION_END);
	if (!http->daemon) {
		int error = errno;

		free(http);
		return error_set(err, error ? error : EIO, "metrics: no HTTP server: %s",
				 strerror(error));
	}
	*result = http;
	return 0;
}

void http_close(struct http *http)
{
	if (!http)
		return;
	MHD_stop_daemon(http->daemon);
	free(http);
}
