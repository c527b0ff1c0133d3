#include "command/cmd.h"

#include <stdarg.h>
#include <stdio.h>

#include "terminal/say.h"

int cmd_error(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_as("ndio", fmt, args);
	va_end(args);
	return CMD_FAILED;
}

static int usage_hint(const char *self)
{
	fprintf(stderr, "Try \"%s --help\".\n", self);
	return CMD_USAGE;
}

int cmd_usage(const char *self, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say_as(self, fmt, args);
	va_end(args);
	return usage_hint(self);
}

/* The short options among them, as getopt_long() wants them. An argument that can be left out isn't
 * looked for behind a short one. */
static void list_letters(const struct option *options, char *letters)
{
	for (; options->name; options++)
		if (!options->flag && options->val < 128)
			letters += sprintf(letters, "%c%s", options->val,
					   options->has_arg == required_argument ? ":" : "");
	*letters = '\0';
}

int cmd_options(int argc, char **argv, const char *help, const struct option *options,
		cmd_take_fn *take, void *opaque)
{
	const char *wrong = NULL;
	char letters[64];
	int option;

	list_letters(options, letters);
	while (!wrong && (option = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		if (option == '?')
			return usage_hint(argv[0]); /* what is wrong was printed */
		if (option == 'h') {
			fputs(help, stdout);
			return CMD_OK;
		}
		if (option)
			wrong = take(opaque, option, optarg);
	}
	return wrong ? cmd_usage(argv[0], "%s", wrong) : CMD_GO_ON;
}
