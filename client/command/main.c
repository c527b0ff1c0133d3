/* main: finds the subcommand and runs it. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/places.h"
#include "command/cmd.h"
#include "command/complete.h"
#include "command/spelling.h"
#include "library/ndio.h"
#include "terminal/interrupt.h"

static const struct command commands[] = {
	{ "format", "make an encrypted volume", help_format, cmd_format },
	{ "info", "show what a volume is, and its server", help_info, cmd_info },
	{ "map", "show where a disk has data and holes", help_map, cmd_map },
	{ "copy", "copy between plain and encrypted, local and remote", help_copy, cmd_copy },
	{ "compare", "tell whether two such hold the same", help_compare, cmd_compare },
	{ "key", "add, remove, change or list the keys of a volume", help_key, cmd_key },
	{ "header", "keep, restore or erase the header of a volume", help_header, cmd_header },
	{ "trust", "seal a header, and keep what a disk is", help_trust, cmd_trust },
	{ "resize", "let a volume have all of a disk that has grown", help_resize, cmd_resize },
	{ "convert", "make LUKS1 LUKS2, or back", help_convert, cmd_convert },
	{ "bench", "measure what a disk does", help_bench, cmd_bench },
	{ "attach", "make a volume a block device of this machine", help_attach, cmd_attach },
	{ "detach", "let such a device go", help_detach, cmd_detach },
	{ "list", "show such devices", help_list, cmd_list },
	{ "serve", "serve a disk to NBD clients", NULL, cmd_serve },
	{ "psk", "make a key for TLS", help_psk, cmd_psk },
};
#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void print_usage(FILE *to)
{
	fprintf(to, "Usage: ndio COMMAND [OPTION...] LOCATOR...\n"
		    "Encrypted disks (LUKS) in files, on block devices and on NBD servers.\n"
		    "\n"
		    "Commands:\n");
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(to, "  %-8s %s\n", "help", "show the options of a command");
	fprintf(to, "\n"
		    "A LOCATOR is the path of a file or block device, or an NBD URI such as\n"
		    "nbd://host/export, nbds://host/export or nbd+unix:///export?socket=PATH.\n"
		    "\n"
		    "  -h, --help     show this\n"
		    "  -V, --version  show the version\n"
		    "\n"
		    "Exit status: 0 success, 1 failure, 2 a command line that makes no sense; of\n"
		    "compare: 0 the same, 1 different, 2 not known.\n"
		    "See ndio(1), and ndio-COMMAND(1) or ndio-COMMAND(8) for each command.\n");
}

static int show_usage(void)
{
	print_usage(stdout);
	return CMD_OK;
}

/* The command that was probably meant, or NULL. */
static const char *nearest_command(const char *name)
{
	const char *nearest = NULL;

	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (spelling_is_near(name, commands[i].name) &&
		    (!nearest ||
		     spelling_distance(name, commands[i].name) < spelling_distance(name, nearest)))
			nearest = commands[i].name;
	return nearest ? nearest : spelling_is_near(name, "help") ? "help" : NULL;
}

static int unknown_command(const char *name)
{
	const char *nearest = nearest_command(name);

	if (nearest)
		return cmd_usage("ndio", "\"%s\" is not a command: did you mean \"%s\"?", name,
				 nearest);
	return cmd_usage("ndio", "\"%s\" is not a command", name);
}

static int show_help_of_help(void)
{
	fputs("Usage: ndio help [COMMAND]\n"
	      "Show the options of a command, or all commands. The same as ndio COMMAND --help; the\n"
	      "manual says more: ndio-COMMAND(1) or ndio-COMMAND(8).\n",
	      stdout);
	return CMD_OK;
}

static bool is_help(const char *word)
{
	return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* argv[0] becomes its name. */
static int command_run(const struct command *command, int argc, char **argv)
{
	char self[32];

	snprintf(self, sizeof(self), "ndio %s", command->name);
	argv[0] = self;
	return command->run(argc, argv);
}

static int show_help(int argc, char **argv)
{
	static char option[] = "--help";
	const struct command *command;

	if (argc < 3)
		return show_usage();
	if (argc > 3)
		return cmd_usage("ndio", "help takes one command");
	if (is_help(argv[2]))
		return show_help_of_help();
	command = find_command(argv[2]);
	if (!command)
		return unknown_command(argv[2]);
	if (!command->help)
		return command_run(command, 2, (char *[]){ NULL, option, NULL });
	fputs(command->help, stdout);
	return CMD_OK;
}

static int dispatch(int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		print_usage(stderr);
		return cmd_usage("ndio", "which command?");
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return show_usage();
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("ndio %s\n", ndio_version());
		return CMD_OK;
	}
	if (strcmp(argv[1], "help") == 0)
		return show_help(argc, argv);
	if (strcmp(argv[1], "complete") == 0) { /* for the shells alone */
		complete_words(commands, NR_COMMANDS, argv + 2, argc - 2);
		return CMD_OK;
	}
	if (argv[1][0] == '-')
		return cmd_usage("ndio", "there is no option %s", argv[1]);
	command = find_command(argv[1]);
	return command ? command_run(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}

/* What was printed must have arrived: a full disk is a failure. */
static int close_stdout(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	cmd_error("standard output: %s", strerror(errno));
	return status == CMD_OK ? CMD_FAILED : status;
}

int main(int argc, char **argv)
{
	int status;

	if (!keep_places())
		return CMD_USAGE; /* 1 would be an answer of ndio compare's */
	signal(SIGPIPE, SIG_IGN); /* the write that fails says so */
	signal(SIGXFSZ, SIG_IGN); /* likewise, beyond ulimit -f */
	signal(SIGCHLD, SIG_DFL); /* who ignores it, and has us do so, keeps us from waiting */
	status = close_stdout(dispatch(argc, argv));
	interrupt_die(); /* a shell goes on after a status, whatever it is */
	return status;
}
