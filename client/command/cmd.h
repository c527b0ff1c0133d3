/* cmd: what the subcommands of the ndio command share. */
#ifndef NDIO_CMD_H
#define NDIO_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses, and what a subcommand returns. */
enum cmd_status {
	CMD_OK = 0,
	CMD_FAILED = 1, /* a message was printed */
	CMD_USAGE = 2,  /* the command line makes no sense */
};

struct command {
	const char *name;    /* "copy" */
	const char *summary; /* its line in `ndio --help` */
	const char *help;    /* all of `ndio copy --help`, ends in a newline */
	/* argv[0] is "ndio copy", so that getopt_long's own messages are right. Returns an
	 * enum cmd_status. main() checks and flushes stdout afterwards, and ignores SIGPIPE. */
	int (*run)(int argc, char **argv);
};

/* Each in its cmd-NAME.c. */
extern const char help_format[], help_info[], help_copy[], help_compare[], help_key[];
extern const char help_attach[], help_detach[], help_list[], help_psk[];
int cmd_format(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_copy(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_attach(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_psk(int argc, char **argv);

/* Prints "ndio: ..." and a newline on stderr. Unprintable characters become '?': names of
 * files and what servers say can be hostile to a terminal. Returns CMD_FAILED. */
int cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "ndio copy: ..." and where help is, on stderr. self is argv[0]. Returns CMD_USAGE. */
int cmd_usage(const char *self, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long has printed what is wrong: says where help is. Returns CMD_USAGE. */
int cmd_usage_hint(const char *self);

/* For ndio_options.notice: prints it as cmd_error() does, unless it is what it printed last. opaque
 * is unused. Any thread. */
void cmd_notice(void *opaque, const char *message);

/* Copies text for a terminal, cut to fit, '?' for what is unprintable. Returns to. */
char *cmd_clean(const char *text, char *to, size_t size);

/* Is this locator an NBD URI, and not a path? */
bool cmd_is_uri(const char *locator);

/* A whole decimal number of at most max. */
bool cmd_parse_number(const char *text, uint64_t max, uint64_t *number);

/* The value of --answer-timeout, in seconds; and what to say where it is wrong. */
bool cmd_parse_answer_timeout(const char *text, unsigned *seconds);
#define CMD_ANSWER_TIMEOUT_WRONG "--answer-timeout takes seconds, from 1 to 86400"

/* Bytes, with a unit: K, M, G, T, P, E or KiB, MiB, ... for powers of 1024, KB, MB, ... for powers of
 * 1000, in capitals or not. At most INT64_MAX. */
bool cmd_parse_size(const char *text, uint64_t *bytes);

/* "1.5 GiB", for people. text has room for 16 bytes. */
const char *cmd_size_text(uint64_t bytes, char text[16]);

#endif
