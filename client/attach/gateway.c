#include "attach/gateway.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/volume.h"
#include "locator/locator.h"
#include "memory/ask.h"
#include "nbd/lasting-words.h"
#include "terminal/interrupt.h"
#include "terminal/pin-input.h"
#include "terminal/program.h"
#include "terminal/say.h"
#include "terminal/server-program.h"

#define SOCKET_OPTION "--socket"
#define FIRST_MS      60000 /* until it must answer for the first time */
#define STOP_MS       30000 /* until it must have ended: it waits for the server */
#define KILL_MS       10000
#define BLOCK         512 /* bytes that are read to see whether it answers */
#define INTERRUPT_MS  100 /* how often it is looked whether one came meanwhile */

/* ---- the key's way into the server ---- */

/* A file that has no name, whose only page with the key is locked; cleansed when the
 * server has read it. */
struct key_file {
	int fd;
	void *memory;
	size_t size;
};

static int key_file_make(struct key_file *file, const struct key *key, struct error *err)
{
	file->size = key->len;
	file->memory = MAP_FAILED;
	file->fd = memfd_create("ndio-key", MFD_CLOEXEC);
	if (file->fd >= 0 && file->size == 0)
		return 0; /* an empty key is just a wrong one, and can't be mapped */
	if (file->fd >= 0 && ftruncate(file->fd, file->size) == 0)
		file->memory =
			mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
	if (file->memory == MAP_FAILED || mlock(file->memory, file->size) < 0)
		return error_set(err, errno, "no locked memory for the key: %s", strerror(errno));
	memcpy(file->memory, key->data, file->size);
	return 0;
}

static void key_file_close(struct key_file *file)
{
	if (file->memory != MAP_FAILED) {
		OPENSSL_cleanse(file->memory, file->size);
		munmap(file->memory, file->size);
	}
	if (file->fd >= 0)
		close(file->fd);
}

/* ---- starting ---- */

#define ARGS_MAX 25

struct arguments {
	char *argv[ARGS_MAX + 1];
	unsigned count;
};

/* Whether memory was short is looked at once, when it is used. */
static void add_argument(struct arguments *args, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void add_argument(struct arguments *args, const char *fmt, ...)
{
	char *text = NULL;
	va_list list;

	va_start(list, fmt);
	if (vasprintf(&text, fmt, list) < 0)
		text = NULL;
	va_end(list);
	args->argv[args->count++] = text;
}

static bool has_all(const struct arguments *args)
{
	for (unsigned i = 0; i < args->count; i++)
		if (!args->argv[i])
			return false;
	return true;
}

static void free_arguments(struct arguments *args)
{
	for (unsigned i = 0; i < args->count; i++)
		free(args->argv[i]);
}

/* fd: of the key, or where the passphrase is asked for. */
static void make_arguments(const struct gateway_spec *spec, const char *program, int fd,
			   struct arguments *args)
{
	add_argument(args, "%s", program);
	add_argument(args, "--background");
	add_argument(args, SOCKET_OPTION);
	add_argument(args, "%s", spec->socket);
	add_argument(args, "--lock");
	if (spec->read_only)
		add_argument(args, "--read-only");
	/* Linux from 6.10 on asks for up to 4 GiB of zeroes in one request. Encrypting and writing
	 * them would take longer than it waits for one. */
	add_argument(args, "--no-zero");
	if (locator_is_uri(spec->locator)) {
		add_argument(args, "--connections=%u", spec->connections);
		if (spec->answer_timeout)
			add_argument(args, "--answer-timeout=%u", spec->answer_timeout);
		add_argument(args, "--reconnect=%u", spec->reconnect);
		if (spec->unflushed)
			add_argument(args, "--unflushed=%" PRIu64, spec->unflushed);
		add_argument(args, "--wait=%u", spec->wait);
	}
	if (spec->header)
		add_argument(args, "--header=%s", spec->header);
	if (spec->unlock.trust)
		add_argument(args, "--trust=%s", spec->unlock.trust);
	if (spec->metrics)
		add_argument(args, "--metrics=%s", spec->metrics);
	if (spec->key && spec->unlock.volume_key)
		add_argument(args, "--volume-key-file=/proc/self/fd/%d", fd);
	else
		add_argument(args, spec->key ? "--key-fd=%d" : "--ask=%d", fd);
	if (unlock_by_one_slot(&spec->unlock))
		add_argument(args, "--slot=%d", spec->unlock.slot);
	if (spec->unlock.by_tokens && spec->unlock.token == LUKS_ANY_TOKEN)
		add_argument(args, "--token=any");
	else if (spec->unlock.by_tokens)
		add_argument(args, "--token=%d", spec->unlock.token);
	if (spec->unlock.max_kdf_time)
		add_argument(args, "--max-kdf-time=%u", spec->unlock.max_kdf_time);
	if (spec->discard)
		add_argument(args, "--discard");
	add_argument(args, "--");
	add_argument(args, "%s", spec->locator);
}

/* The server, while it starts. */
struct start {
	const char *socket;
	struct program program;
	size_t told; /* bytes of what it printed that were passed on */
	int asker;   /* our end of the socket where it asks for the passphrase */
};

/* That it listens at our socket is nothing to tell. */
static bool is_expected(const char *line, const char *socket)
{
	static const char listens[] = ": listening on ";
	size_t len = strlen(line), rest = strlen(listens) + strlen(socket);

	return len >= rest && strncmp(line + len - rest, listens, strlen(listens)) == 0 &&
	       strcmp(line + len - strlen(socket), socket) == 0;
}

/* What it says while it starts: its error is the reason, the rest is passed on, but for lines that only go
 * on where one of these left off. */
static const char *read_output(const struct start *start, struct program_output *output)
{
	static const char mine[] = "ndio serve: ", error[] = "ndio serve: error: ";
	const char *reason = NULL, *other = NULL;
	char *rest = output->text, *line;

	while ((line = strsep(&rest, "\n")))
		if (strncmp(line, error, strlen(error)) == 0)
			reason = line + strlen(error);
		else if (strncmp(line, mine, strlen(mine)) != 0)
			other = *line ? line : other;
		else if (line >= output->text + start->told && !is_expected(line, start->socket))
			say_notice(NULL, line + strlen(mine));
	return reason ?: other ?: "the server doesn't say why";
}

/* Whole lines, before it has ended: that something takes long is told meanwhile. */
static void pass_on_output(struct start *start)
{
	struct program_output output;
	char *end;

	program_printed(&start->program, &output);
	end = strrchr(output.text, '\n');
	if (!end)
		return;
	*end = '\0';
	read_output(start, &output);
	start->told = end + 1 - output.text;
}

static int start_server(const struct gateway_spec *spec, const char *program, int fd,
			struct start *start, struct error *err)
{
	struct arguments args = { .count = 0 };
	int ret;

	make_arguments(spec, program, fd, &args);
	ret = has_all(&args) ?
		      program_start((const char *const *)args.argv, fd, &start->program, err) :
		      error_set(err, ENOMEM, "out of memory");
	free_arguments(&args);
	return ret;
}

static int wait_until_started(struct start *start, struct error *err)
{
	struct program_output output;
	const char *reason;
	int ret;

	while (!program_ends_within(&start->program, INTERRUPT_MS) && !interrupt_caught())
		pass_on_output(start);
	ret = program_end(&start->program, &output, err);
	if (ret < 0)
		return ret;
	reason = read_output(start, &output);
	return ret > 0 ? error_set(err, EIO, "%s", reason) : 0;
}

static int start_with_key(const struct gateway_spec *spec, const char *program, struct error *err)
{
	struct start start = { .socket = spec->socket };
	struct key_file key;
	int ret = key_file_make(&key, spec->key, err);

	if (ret == 0)
		ret = start_server(spec, program, key.fd, &start, err);
	if (ret == 0)
		ret = wait_until_started(&start, err);
	key_file_close(&key);
	return ret;
}

/* Where nobody knows one, an empty one says so. */
static void answer_pin(const struct start *start, const char *token, const char *why)
{
	struct key pin = { 0 };
	struct error err;

	error_set(&err, EPERM, "%s", why);
	if (pin_input(NULL, token, &pin, &err) < 0)
		key_clear(&pin);
	ask_answer(start->asker, &pin, &err); /* who has gone asks nothing more */
	key_clear(&pin);
}

static int wait_for_question(struct start *start, struct error *err)
{
	struct pollfd asker = { .fd = start->asker, .events = POLLIN };

	while (poll(&asker, 1, INTERRUPT_MS) != 1) {
		if (interrupt_caught())
			return error_set(err, EINTR, "interrupted");
		pass_on_output(start);
	}
	pass_on_output(start); /* above the next prompt */
	return ask_next(start->asker, err);
}

/* 1: it asks for a passphrase, and err says why the one before opens nothing; 0: it doesn't ask any
 * more, or has ended; -EINTR with a message. Meanwhile it may ask for PINs. */
static int is_asking(struct start *start, struct error *err)
{
	const char *token, *why;
	int ret = wait_for_question(start, err);

	while (ret > 0 && ask_is_pin(err, &token, &why)) {
		answer_pin(start, token, why);
		ret = wait_for_question(start, err);
	}
	return ret;
}

static int gateway_try_key(void *opaque, const struct key *key, struct error *err)
{
	struct start *start = opaque;
	int ret = ask_answer(start->asker, key, err);

	if (ret < 0)
		return ret;
	ret = is_asking(start, err);
	return ret > 0 ? -EPERM : ret;
}

/* If nothing comes of it the server ends, too, when its socket is closed. */
static int start_asking(const struct gateway_spec *spec, const char *program, struct error *err)
{
	struct start start = { .socket = spec->socket };
	int ends[2], ret, ended;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return error_set(err, errno, "a socket for the passphrase: %s", strerror(errno));
	start.asker = ends[0];
	ret = start_server(spec, program, ends[1], &start, err);
	close(ends[1]);
	if (ret < 0) {
		close(start.asker);
		return ret;
	}
	ret = is_asking(&start, err);
	if (ret > 0)
		ret = spec->ask(spec->ask_opaque, gateway_try_key, &start, err);
	close(start.asker);
	ended = wait_until_started(&start, ret < 0 ? NULL : err);
	return ret < 0 ? ret : ended;
}

/* A block can be written anew, an area that is an older one can't. */
static int check_damage(const struct gateway_facts *facts, struct error *err)
{
	if (facts->found.stale_areas)
		return error_set(err, ESTALE,
				 "the disk is an older one, or was changed without the trust file; "
				 "its log (journalctl -t ndio-serve) says where");
	say_error(
		"warning: the disk's first block can't be read: it was changed, or never written");
	return 0;
}

/* It is in the background by now, and says what is wrong to syslog. */
static int wait_until_well(const char *socket, struct error *err)
{
	struct gateway_facts facts = { 0 };
	enum gateway_health health = gateway_check(socket, FIRST_MS, &facts);

	if (interrupt_caught())
		return error_set(err, EINTR, "interrupted");
	switch (health) {
	case GATEWAY_WELL:
		return 0;
	case GATEWAY_DAMAGED:
		return check_damage(&facts, err);
	case GATEWAY_GONE:
		return error_set(err, EIO, "it ended; its log (journalctl -t ndio-serve) says why");
	case GATEWAY_SILENT:
		return error_set(err, ETIMEDOUT, "no answer within %d seconds", FIRST_MS / 1000);
	default:
		return error_set(err, EIO,
				 "the disk can't be read; its log (journalctl -t ndio-serve) "
				 "says why");
	}
}

int gateway_start(const struct gateway_spec *spec, struct error *err)
{
	char program[PATH_MAX];
	int ret = server_program_find(program, err);

	/* One that came while the device was claimed. */
	if (ret == 0 && interrupt_caught())
		ret = error_set(err, EINTR, "interrupted");
	if (ret < 0)
		return ret;
	ret = spec->key ? start_with_key(spec, program, err) : start_asking(spec, program, err);
	if (ret == 0)
		ret = wait_until_well(spec->socket, err);
	if (ret < 0)
		gateway_stop(spec->socket, true, NULL);
	return ret;
}

/* ---- finding and stopping ---- */

/* At most size - 1 bytes of /proc/PID/file, and a NUL. How many, 0 where there are none. */
static size_t read_proc(pid_t pid, const char *file, char *text, size_t size)
{
	char path[64];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? 0 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	if (len < 0)
		len = 0;
	text[len] = '\0';
	return len;
}

/* Anybody can give a program any command line, and start those that change their user. So it has to
 * be ours in every way: by the user who started it as well. The owner of the folder in /proc
 * doesn't tell: it is root for any process that can't be dumped. */
static bool is_ours(pid_t pid)
{
	static const char line[] = "\nUid:";
	char text[4096], *uids;
	unsigned real, effective, saved, fs, me = geteuid();

	read_proc(pid, "status", text, sizeof(text));
	uids = strstr(text, line);
	return uids &&
	       sscanf(uids + strlen(line), "%u %u %u %u", &real, &effective, &saved, &fs) == 4 &&
	       real == me && effective == me && saved == me && fs == me;
}

/* Is this process's command line one that make_arguments() made for the socket? */
static bool has_socket(pid_t pid, const char *socket)
{
	static const char option[] = SOCKET_OPTION;
	char text[2 * PATH_MAX], *next;
	char *end = text + read_proc(pid, "cmdline", text, sizeof(text));

	for (char *arg = text; arg < end; arg = next) {
		next = arg + strlen(arg) + 1;
		if (strcmp(arg, option) == 0)
			return next < end && strcmp(next, socket) == 0;
	}
	return false;
}

static bool serves(pid_t pid, const char *socket)
{
	return has_socket(pid, socket) && is_ours(pid);
}

pid_t gateway_find(const char *socket)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t pid = 0;

	if (!proc)
		return 0;
	while (pid == 0 && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && serves(atoi(entry->d_name), socket))
			pid = atoi(entry->d_name);
	closedir(proc);
	return pid;
}

/* A signal of our own doesn't cut it short. */
static bool ends_within(int pidfd, unsigned ms)
{
	struct pollfd process = { .fd = pidfd, .events = POLLIN };
	int64_t deadline = clock_ms() + ms, left = ms;
	int ret;

	do {
		ret = poll(&process, 1, left);
		left = deadline - clock_ms();
	} while (ret < 0 && errno == EINTR && left > 0);
	return ret == 1;
}

static int stop(pid_t pid, const char *socket, bool kill, struct error *err)
{
	int process = pidfd_open(pid, 0);
	int ret = 0;

	if (process < 0)
		return errno == ESRCH ? 0 :
					error_set(err, errno, "the gateway (process %d): %s", pid,
						  strerror(errno));
	/* The number may be another process's by now. */
	if (serves(pid, socket)) {
		pidfd_send_signal(process, kill ? SIGKILL : SIGTERM, NULL, 0);
		if (!ends_within(process, kill ? KILL_MS : STOP_MS))
			ret = error_set(err, EBUSY, "the gateway (process %d) doesn't end", pid);
	}
	close(process);
	return ret;
}

/* One that was just going into the background is two. */
int gateway_stop(const char *socket, bool kill, struct error *err)
{
	pid_t pid;
	int ret = 0;

	while (ret == 0 && (pid = gateway_find(socket)) > 0)
		ret = stop(pid, socket, kill, err);
	return ret;
}

/* ---- asking it ---- */

/* > 0: yes; 0: not yet; < 0: it won't be. libnbd answers the second only once. */
static int is_connected(struct nbd_handle *nbd, int64_t cookie)
{
	(void)cookie;
	return nbd_aio_is_dead(nbd) || nbd_aio_is_closed(nbd) ? -1 : nbd_aio_is_ready(nbd);
}

static int is_answered(struct nbd_handle *nbd, int64_t cookie)
{
	return nbd_aio_command_completed(nbd, cookie);
}

static enum gateway_health wait_until(struct nbd_handle *nbd,
				      int (*is_true)(struct nbd_handle *, int64_t), int64_t cookie,
				      int64_t deadline)
{
	int ret;

	while ((ret = is_true(nbd, cookie)) == 0) {
		int64_t left = deadline - clock_ms();

		if (left <= 0 || interrupt_caught())
			return GATEWAY_SILENT;
		if (nbd_poll(nbd, left < INTERRUPT_MS ? left : INTERRUPT_MS) < 0 &&
		    nbd_aio_is_ready(nbd) && nbd_get_errno() != EINTR)
			return GATEWAY_FAILING; /* not the connection: poll itself */
	}
	return ret > 0 ? GATEWAY_WELL : GATEWAY_FAILING;
}

static enum gateway_health reach(struct nbd_handle *nbd, const char *socket, int64_t deadline)
{
	if (nbd_aio_connect_unix(nbd, socket) < 0)
		return GATEWAY_FAILING;
	return wait_until(nbd, is_connected, 0, deadline);
}

static enum gateway_health read_block(struct nbd_handle *nbd, const char *socket, void *block,
				      int64_t deadline)
{
	enum gateway_health health = reach(nbd, socket, deadline);
	int64_t cookie;

	if (health != GATEWAY_WELL || nbd_get_size(nbd) < BLOCK)
		return health;
	cookie = nbd_aio_pread(nbd, block, BLOCK, 0, NBD_NULL_COMPLETION, 0);
	return cookie < 0 ? GATEWAY_FAILING : wait_until(nbd, is_answered, cookie, deadline);
}

/* One that isn't there doesn't answer either. */
static enum gateway_health or_gone(enum gateway_health health, const char *socket)
{
	return health == GATEWAY_FAILING && gateway_find(socket) == 0 ? GATEWAY_GONE : health;
}

/* What it says of the disk and of itself, or NULL. */
static char *gateway_describe(const char *socket, unsigned ms, enum gateway_health *health)
{
	struct nbd_handle *nbd = nbd_create();
	char *description = NULL;

	*health = GATEWAY_FAILING;
	if (!nbd)
		return NULL;
	if (nbd_set_full_info(nbd, true) == 0)
		*health = reach(nbd, socket, clock_ms() + ms);
	if (*health == GATEWAY_WELL)
		description = nbd_get_export_description(nbd);
	nbd_close(nbd);
	*health = or_gone(*health, socket);
	return description;
}

enum gateway_health gateway_look(const char *socket, unsigned ms, struct gateway_facts *facts)
{
	enum gateway_health health;
	char *description = gateway_describe(socket, ms, &health);

	*facts = (struct gateway_facts){ 0 };
	if (description) {
		facts->has_server = lasting_parse(description, &facts->server);
		facts->has_integrity = integrity_parse(description, &facts->found);
	}
	free(description);
	return health;
}

/* Has a read that failed been one of damage? */
static bool has_found_more(const char *socket, unsigned ms, struct gateway_facts *facts)
{
	const struct integrity_found before = facts->found;
	struct gateway_facts now;

	gateway_look(socket, ms, &now);
	if (!now.has_integrity ||
	    (now.found.bad_reads == before.bad_reads && !now.found.stale_areas))
		return false;
	*facts = now;
	return true;
}

enum gateway_health gateway_check(const char *socket, unsigned ms, struct gateway_facts *facts)
{
	struct nbd_handle *nbd = nbd_create();
	enum gateway_health health;
	char block[BLOCK]; /* plaintext: cleansed */

	if (!nbd)
		return GATEWAY_FAILING;
	health = read_block(nbd, socket, block, clock_ms() + ms);
	nbd_close(nbd); /* and what is in flight is forgotten */
	OPENSSL_cleanse(block, sizeof(block));
	if (health == GATEWAY_FAILING && has_found_more(socket, ms, facts))
		return GATEWAY_DAMAGED;
	return or_gone(health, socket);
}

int gateway_sector(const char *socket, unsigned *sector, struct error *err)
{
	enum gateway_health health;
	char *description = gateway_describe(socket, FIRST_MS, &health);
	unsigned version;
	int ret = 0;

	if (!description || sscanf(description, VOLUME_DESCRIPTION, &version, sector) != 2)
		ret = error_set(err, EPROTO, "it doesn't tell what sectors the disk has");
	free(description);
	return ret;
}
