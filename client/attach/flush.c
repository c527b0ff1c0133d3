/* fsync(2) can't be interrupted, and ends when the server is back or given up. So a child waits in it,
 * while the gateway is asked how the server is.
 *
 * Where all was flushed before the server went, nothing has to be asked of it: sync_file_range(2) tells
 * whether writes have failed, or still wait in the page cache, and doesn't flush the disk. */
#include "attach/flush.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/gateway.h"
#include "attach/kernel-device.h"
#include "terminal/number.h"

#define LOOK_MS   500  /* between looks at the server */
#define IDLE_MS   5000 /* for what should have nothing to do */
#define ANSWER_MS 3000

static bool is_away(const struct attachment *attachment, struct lasting_facts *server)
{
	struct gateway_facts facts;

	gateway_look(attachment->socket, ANSWER_MS, &facts);
	*server = facts.server;
	return facts.has_server && server->state != SESSION_UP && server->state != SESSION_ENDED;
}

static int flush_refuse(const struct attachment *attachment, const struct lasting_facts *server,
			struct error *err)
{
	char size[16] = "";

	return error_set(err, EBUSY,
			 "/dev/nbd%u: the server has been away for %" PRIi64
			 " seconds, and not all that was written is flushed (%s in the gateway): "
			 "detach it when it is back, or see --force",
			 attachment->index, server->lost_ms / 1000,
			 size_text(server->unflushed, size));
}

/* Nobody who started us waits for it. */
_Noreturn static void flush_in_child(const struct attachment *attachment, int fd, bool away)
{
	const unsigned write_pages =
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	close(attachment->lock);
	for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
		if (null < 0 || dup2(null, i) < 0)
			close(i);
	_exit((away ? sync_file_range(fd, 0, 0, write_pages) : fsync(fd)) < 0 ? errno : 0);
}

static int flush_wait(const struct attachment *attachment, pid_t pid, int look_ms,
		      struct error *err)
{
	struct pollfd ended = { .fd = pidfd_open(pid, 0), .events = POLLIN };
	struct lasting_facts server;
	int status, ret = 0;

	while (ended.fd >= 0 && ret == 0 && poll(&ended, 1, look_ms) == 0)
		if (is_away(attachment, &server))
			ret = flush_refuse(attachment, &server, err);
	if (ended.fd >= 0)
		close(ended.fd);
	if (ret < 0 || waitpid(pid, &status, 0) < 0)
		return ret < 0 ? ret : error_set(err, errno, "waitpid: %s", strerror(errno));
	ret = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
	return ret ? error_set(err, ret, "/dev/nbd%u: flushing it: %s (see --force)",
			       attachment->index, strerror(ret)) :
		     0;
}

int flush_device(const struct attachment *attachment, int fd, struct error *err)
{
	struct lasting_facts server;
	bool away = is_away(attachment, &server);
	pid_t pid;

	if (away && (server.unflushed > 0 || !kernel_device_idle(attachment->index)))
		return flush_refuse(attachment, &server, err);
	pid = fork();
	if (pid == 0)
		flush_in_child(attachment, fd, away);
	return pid < 0 ? error_set(err, errno, "no process to flush /dev/nbd%u: %s",
				   attachment->index, strerror(errno)) :
			 flush_wait(attachment, pid, away ? IDLE_MS : LOOK_MS, err);
}
