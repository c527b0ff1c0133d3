/* cmd: what the subcommands of the ndio command share. */
#ifndef NDIO_CMD_H
#define NDIO_CMD_H

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

/* Says it as say_error() does. Returns CMD_FAILED. */
int cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "ndio copy: ..." and where help is, on stderr. self is argv[0]. Returns CMD_USAGE. */
int cmd_usage(const char *self, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long has printed what is wrong: says where help is. Returns CMD_USAGE. */
int cmd_usage_hint(const char *self);

#endif
