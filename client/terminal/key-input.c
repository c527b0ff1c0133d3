#include "terminal/key-input.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/printable.h"
#include "terminal/agent.h"
#include "terminal/interrupt.h"
#include "terminal/number.h"
#include "terminal/say.h"

#define TYPED_MAX    512             /* bytes of a passphrase that is typed, as cryptsetup has it */
#define TRIES        3               /* for a new one to be typed twice */
#define INTERRUPT_MS 100             /* how often it is looked whether one came */
#define LINE_ROOM    (TYPED_MAX + 1) /* with its newline, or what is one too many */

/* ---- the command line ---- */

bool key_source_given(const struct key_source *source)
{
	return source->file || source->fd >= 0;
}

bool key_source_set_file(struct key_source *source, const char *value)
{
	if (key_source_given(source))
		return false;
	source->file = value;
	return true;
}

bool key_source_set_fd(struct key_source *source, const char *value)
{
	uint64_t fd;

	if (key_source_given(source) || !parse_number(value, INT_MAX, &fd))
		return false;
	source->fd = fd;
	return true;
}

const char *key_source_set_offset(struct key_source *source, const char *value)
{
	return parse_size(value, &source->part.offset) ?
		       NULL :
		       "the offset in a key file is a number of bytes, or one with K, M, G or T";
}

const char *key_source_set_size(struct key_source *source, const char *value)
{
	return parse_size(value, &source->part.size) && source->part.size > 0 &&
			       source->part.size <= KEY_MAX ?
		       NULL :
		       "the size of a key is from 1 byte to 8 MiB";
}

const char *key_source_check(const struct key_source *source)
{
	return (source->part.offset || source->part.size) && !key_source_given(source) ?
		       "an offset or a size is for a key from a file or a descriptor" :
		       NULL;
}

static int descriptor_of(const struct key_source *source)
{
	if (source->file && strcmp(source->file, "-") == 0)
		return STDIN_FILENO;
	return source->fd;
}

bool key_sources_clash(const struct key_source *a, const struct key_source *b)
{
	return descriptor_of(a) >= 0 && descriptor_of(a) == descriptor_of(b);
}

/* ---- files and descriptors ---- */

/* Who else may read it is said where it becomes a key, which a wrong one may not be. */
static int read_file(const char *path, const struct key_part *part, bool is_new, struct key *key,
		     struct error *err)
{
	char name[PATH_MAX + 16];
	bool readable;
	int ret;

	snprintf(name, sizeof(name), "key file %s", path);
	ret = key_file_load(path, name, part, &readable, key, err);
	if (readable && is_new)
		say_error("warning: %s: others may read it", name);
	return ret;
}

static int read_descriptor(int fd, const struct key_part *part, struct key *key, struct error *err)
{
	char name[48];

	snprintf(name, sizeof(name), "key file on descriptor %d", fd);
	return key_file_read(fd, fd == STDIN_FILENO ? "key file on standard input" : name, part,
			     key, err);
}

/* ---- the terminal ---- */

/* Those whose default ends or stops the program, which must not leave the echo off. */
static const int fatal_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP };
#define NR_FATAL (sizeof(fatal_signals) / sizeof(fatal_signals[0]))

static volatile sig_atomic_t caught_signal;

static void catch_signal(int number)
{
	caught_signal = number;
}

struct terminal {
	int fd;
	struct termios before;
	struct sigaction actions[NR_FATAL];
};

/* No SA_RESTART: a signal ends the read. */
static void signals_catch(struct terminal *terminal)
{
	struct sigaction action = { .sa_handler = catch_signal };

	caught_signal = 0;
	for (size_t i = 0; i < NR_FATAL; i++) {
		sigaction(fatal_signals[i], NULL, &terminal->actions[i]);
		if (terminal->actions[i].sa_handler != SIG_IGN)
			sigaction(fatal_signals[i], &action, NULL);
	}
}

static void signals_release(const struct terminal *terminal)
{
	for (size_t i = 0; i < NR_FATAL; i++)
		sigaction(fatal_signals[i], &terminal->actions[i], NULL);
}

static int echo_off(struct terminal *terminal, struct error *err)
{
	struct termios quiet;

	if (tcgetattr(terminal->fd, &terminal->before) < 0)
		return error_set(err, errno, "the terminal: %s", strerror(errno));
	quiet = terminal->before;
	quiet.c_lflag &= ~(ECHO | ECHONL);
	quiet.c_lflag |= ICANON | ISIG;
	if (tcsetattr(terminal->fd, TCSAFLUSH, &quiet) < 0)
		return error_set(err, errno, "the terminal: %s", strerror(errno));
	return 0;
}

static void terminal_tell(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void terminal_tell(int fd, const char *fmt, ...)
{
	char text[1024];
	va_list args;
	ssize_t n;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	n = write(fd, text, strlen(text));
	(void)n; /* a prompt that can't be shown: the answer will not come either */
}

/* One line without its newline. -EINTR when a signal came, which is in caught_signal. */
static int read_line(int fd, struct key *key, struct error *err)
{
	char *line = key->data;
	ssize_t n = 0;

	key->len = 0;
	while (!caught_signal && key->len <= TYPED_MAX) {
		n = read(fd, line + key->len, 1);
		if (n <= 0 || line[key->len] == '\n')
			break;
		key->len++;
	}
	if (caught_signal)
		return error_set(err, EINTR, "interrupted");
	if (n < 0)
		return error_set(err, errno, "the terminal: %s", strerror(errno));
	if (key->len > TYPED_MAX)
		return error_set(err, EFBIG, "a typed passphrase has at most %d bytes", TYPED_MAX);
	if (n == 0 && key->len == 0)
		return error_set(err, ENODATA, "no passphrase was typed");
	return 0;
}

/* Asks until it was answered: again after the program was stopped and continued. */
static int terminal_ask(int fd, const char *prompt, struct key *key, struct error *err)
{
	struct terminal terminal = { .fd = fd };
	char clean[512];
	int ret;

	do {
		signals_catch(&terminal);
		ret = interrupt_caught() ? error_set(err, EINTR, "interrupted") :
					   echo_off(&terminal, err);
		if (ret == 0) {
			terminal_tell(fd, "%s: ", printable(prompt, clean, sizeof(clean)));
			ret = read_line(fd, key, err);
			terminal_tell(fd, "\n");
			tcsetattr(fd, TCSAFLUSH, &terminal.before);
		}
		signals_release(&terminal);
		if (caught_signal)
			raise(caught_signal); /* it does now what it would have done */
	} while (caught_signal == SIGTSTP);
	return ret;
}

static int refuse_empty(struct error *err)
{
	return error_set(err, EINVAL, "an empty key protects nothing");
}

static int ask_again(int fd, const struct key *key, struct error *err)
{
	struct key again = { 0 };
	int ret = key_make(&again, LINE_ROOM, err);

	if (ret == 0)
		ret = terminal_ask(fd, "The same again", &again, err);
	if (ret == 0 && (again.len != key->len || memcmp(again.data, key->data, key->len) != 0))
		ret = error_set(err, EINVAL, "the two passphrases differ");
	key_clear(&again);
	return ret;
}

static int open_terminal(void)
{
	return open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
}

static int ask_new(int fd, const char *prompt, struct key *key, struct error *err)
{
	int ret = terminal_ask(fd, prompt, key, err);

	if (ret == 0 && key->len == 0)
		return refuse_empty(err);
	return ret < 0 ? ret : ask_again(fd, key, err);
}

static int ask_new_patiently(int fd, const char *prompt, struct key *key, struct error *err)
{
	int ret;

	for (int left = TRIES - 1;; left--) {
		ret = ask_new(fd, prompt, key, err);
		if (ret != -EINVAL || left == 0)
			return ret;
		terminal_tell(fd, "%s: try again\n", err->text);
	}
}

static int read_terminal(const char *prompt, bool is_new, struct key *key, struct error *err)
{
	int fd = open_terminal();
	int ret;

	if (fd < 0)
		return error_set(err, ENOTTY,
				 "no terminal to ask for the key at: "
				 "give a key file or descriptor");
	ret = key_make(key, LINE_ROOM, err);
	if (ret == 0)
		ret = is_new ? ask_new_patiently(fd, prompt, key, err) :
			       terminal_ask(fd, prompt, key, err);
	close(fd);
	return ret;
}

static bool has_terminal(void)
{
	int fd = open_terminal();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* It says nothing until it says all. */
static int wait_for_agent(const struct agent *agent, struct error *err)
{
	struct pollfd answer = { .fd = agent->fd, .events = POLLIN };

	while (poll(&answer, 1, INTERRUPT_MS) != 1)
		if (interrupt_caught())
			return error_set(err, EINTR, "interrupted");
	return 0;
}

static int read_agent(const char *prompt, struct key *key, struct error *err)
{
	const struct key_part all = { .size = 0 };
	struct agent agent;
	char clean[512];
	int ret = agent_start(&agent, printable(prompt, clean, sizeof(clean)), err);
	int ended;

	if (ret < 0)
		return ret;
	ret = wait_for_agent(&agent, err);
	if (ret == 0)
		ret = key_file_read(agent.fd, "the key from systemd-ask-password", &all, key, err);
	ended = agent_end(&agent, ret < 0 ? NULL : err);
	return ret < 0 ? ret : ended;
}

int key_read(const struct key_source *source, const char *prompt, bool is_new, struct key *key,
	     struct error *err)
{
	int ret;

	memset(key, 0, sizeof(*key));
	secret_no_dumps();
	if (descriptor_of(source) >= 0)
		ret = read_descriptor(descriptor_of(source), &source->part, key, err);
	else if (source->file)
		ret = read_file(source->file, &source->part, is_new, key, err);
	else if (source->agents && !has_terminal())
		ret = read_agent(prompt, key, err);
	else
		ret = read_terminal(prompt, is_new, key, err);
	if (ret == 0 && is_new && key->len == 0)
		ret = refuse_empty(err);
	if (ret < 0)
		key_clear(key);
	return ret;
}

int terminal_confirm(const char *question)
{
	int fd = open_terminal();
	char clean[1024], answer[8];
	ssize_t n;

	if (fd < 0)
		return -ENOTTY;
	terminal_tell(fd, "%s ", printable(question, clean, sizeof(clean)));
	n = read(fd, answer, sizeof(answer));
	close(fd);
	return n == 4 && memcmp(answer, "YES\n", 4) == 0;
}
