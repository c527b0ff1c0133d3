/* cmd: what the subcommands of the ndio command share. */
#ifndef NDIO_CMD_H
#define NDIO_CMD_H

#include <getopt.h>

/* Exit statuses, and what a subcommand returns. */
enum cmd_status {
	CMD_OK = 0,
	CMD_FAILED = 1, /* a message was printed */
	CMD_USAGE = 2,  /* the command line makes no sense */
	CMD_GO_ON = -1, /* cmd_options(): none yet */
};

struct command {
	const char *name;    /* "copy" */
	const char *summary; /* its line in `ndio --help` */
	/* All of `ndio copy --help`, ends in a newline. NULL: it is asked for by run() with --help, which
	 * may become another program. */
	const char *help;
	/* argv[0] is "ndio copy", so that getopt_long's own messages are right. Returns an
	 * enum cmd_status. main() checks and flushes stdout afterwards, and ignores SIGPIPE. */
	int (*run)(int argc, char **argv);
};

/* Each in its cmd-NAME.c. */
extern const char help_format[], help_info[], help_copy[], help_compare[], help_key[];
extern const char help_map[], help_header[], help_resize[], help_convert[], help_bench[];
extern const char help_trust[];
extern const char help_attach[], help_detach[], help_list[], help_psk[];
int cmd_format(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_copy(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_header(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_attach(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_trust(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_psk(int argc, char **argv);

/* Says it as say_error() does. Returns CMD_FAILED. */
int cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "ndio copy: ..." and where help is, on stderr. self is argv[0]. Returns CMD_USAGE. */
int cmd_usage(const char *self, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Takes an option and its value, if it has one. NULL, or what is wrong. */
typedef const char *cmd_take_fn(void *opaque, int option, const char *value);

/* Takes all options of a command line, by take() but for those that set a flag by themselves; value is
 * a letter where there is a short one, too. CMD_GO_ON, and the operands are from argv[optind] on; else the
 * command is over: help was asked for and shown, or the message was printed. */
int cmd_options(int argc, char **argv, const char *help, const struct option *options,
		cmd_take_fn *take, void *opaque);

/* The end of the options of each. */
#define CMD_OPTIONS_END                                                                            \
	{ "help", no_argument, NULL, 'h' },                                                        \
	{                                                                                          \
		0                                                                                  \
	}

#endif
