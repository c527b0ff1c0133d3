/* registers [OPTION...] LOCATOR: uses a disk, and checks that no read returns what it must not,
 * whatever happens to the server meanwhile.
 *
 *   --nbd              by libnbd rather than libndio, a connection a lane
 *   --key FILE         --connections N  --reconnect SECONDS  --answer SECONDS  --discard   (libndio)
 *   --lanes N=4        threads           --depth N=8   operations of each in flight
 *   --start BYTES=0    --size BYTES=8M   the region    --block BYTES=4096      a register
 *   --seed N=1         --no-trim
 *   --seconds S        end by itself; else it is told to, see below
 *   --stuck S=120      an operation that takes longer ends the program, with status 3
 *   --state FILE       what each register may hold is there at any time, also if this is killed
 *   --verify           nothing but: is what the disk holds what that file allows? What was flushed
 *                      must be there
 *   --may-fail         errors are counted, and are no reason for status 2
 *
 * Lines on stdin:
 *
 *   mark NAME    something is about to be done to the server; answers "marked"
 *   up           the server is well again: how long until all goes on?
 *   wait N       answers "ready" when N more operations, and all that are in flight, have ended
 *   end          stop; flush; look at all there is once more. So does the end of the file
 *
 * Prints what was wrong as it finds it, and at the end lines of name=value. Exit status: 1 if there
 * are violations (or it can't begin), 2 if there are errors, 3 if something hangs. */
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "registers.h"

struct options options = {
	.lanes = 4,
	.depth = 8,
	.size = 8 << 20,
	.block = 4096,
	.seed = 1,
	.stuck = 120,
};

static struct disk disk;

/* ---- options ---- */

enum type { FLAG, TEXT, NUMBER, BYTES, TIME };

static const struct {
	const char *name;
	enum type type;
	void *to;
} known[] = {
	{ "nbd", FLAG, &options.by_nbd },
	{ "discard", FLAG, &options.discard },
	{ "no-trim", FLAG, &options.no_trim },
	{ "verify", FLAG, &options.verify },
	{ "may-fail", FLAG, &options.may_fail },
	{ "key", TEXT, &options.key_path },
	{ "state", TEXT, &options.state_path },
	{ "connections", NUMBER, &options.connections },
	{ "reconnect", NUMBER, &options.reconnect },
	{ "answer", NUMBER, &options.answer },
	{ "lanes", NUMBER, &options.lanes },
	{ "depth", NUMBER, &options.depth },
	{ "stuck", NUMBER, &options.stuck },
	{ "start", BYTES, &options.start },
	{ "size", BYTES, &options.size },
	{ "block", BYTES, &options.block },
	{ "seed", BYTES, &options.seed },
	{ "seconds", TIME, &options.seconds },
};
#define NR_KNOWN (sizeof(known) / sizeof(known[0]))

/* Bytes, or with K or M. */
static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*end == 'K' || *end == 'M')
		value <<= *end++ == 'K' ? 10 : 20;
	if (end == text || *end)
		fail("registers: %s: no number", text);
	return value;
}

static void set_option(int which, const char *value)
{
	switch (known[which].type) {
	case FLAG:
		*(bool *)known[which].to = true;
		break;
	case TEXT:
		*(const char **)known[which].to = value;
		break;
	case NUMBER:
		*(unsigned *)known[which].to = number(value);
		break;
	case BYTES:
		*(uint64_t *)known[which].to = number(value);
		break;
	case TIME:
		*(double *)known[which].to = strtod(value, NULL);
		break;
	}
}

static bool is_sound(void)
{
	return options.lanes >= 1 && options.lanes <= MAX_LANES && options.depth >= 1 &&
	       options.depth <= MAX_DEPTH && options.block >= SECTOR &&
	       options.block % SECTOR == 0 && options.block <= 64 * 1024 &&
	       (!options.verify || options.state_path);
}

static void parse(int argc, char **argv)
{
	struct option all[NR_KNOWN + 1] = { 0 };
	int which;

	for (unsigned i = 0; i < NR_KNOWN; i++)
		all[i] = (struct option){
			.name = known[i].name,
			.has_arg = known[i].type == FLAG ? no_argument : required_argument,
		};
	for (int option; (option = getopt_long(argc, argv, "", all, &which)) != -1;) {
		if (option != 0)
			fail("registers: see the start of main.c");
		set_option(which, optarg);
	}
	if (optind + 1 != argc || !is_sound())
		fail("registers: see the start of main.c");
	options.locator = argv[optind];
}

/* ---- commands ---- */

static void answer(const char *word)
{
	printf("%s violations=%llu\n", word, (unsigned long long)model_violations());
	fflush(stdout);
}

/* False: it is to end. */
static bool obey(const char *line)
{
	if (strncmp(line, "mark ", 5) == 0) {
		pauses_mark(line + 5);
		answer("marked");
	} else if (strcmp(line, "up") == 0) {
		pauses_up();
	} else if (strncmp(line, "wait ", 5) == 0) {
		lanes_wait(number(line + 5));
		answer("ready");
	} else if (strcmp(line, "end") == 0) {
		return false;
	} else {
		fail("registers: %s: no command", line);
	}
	return true;
}

/* Whole lines out of what has come. */
static bool obey_all(char *text, size_t *len)
{
	char *line = text, *end;

	text[*len] = '\0';
	while ((end = strchr(line, '\n'))) {
		*end = '\0';
		if (!obey(line))
			return false;
		line = end + 1;
	}
	*len -= line - text;
	memmove(text, line, *len);
	return true;
}

static void obey_until_end(void)
{
	char text[1000];
	size_t len = 0;

	for (;;) {
		struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };
		ssize_t n;

		if (poll(&fd, 1, 1000) <= 0) {
			lanes_end_if_stuck();
			continue;
		}
		n = read(STDIN_FILENO, text + len, sizeof(text) - 1 - len);
		if (n <= 0)
			return;
		len += n;
		if (!obey_all(text, &len))
			return;
	}
}

static void sleep_until_end(void)
{
	while (now() < options.seconds) {
		usleep(100000);
		lanes_end_if_stuck();
	}
}

/* ---- the result ---- */

static int print_result(void)
{
	struct counts counts;
	uint64_t errors = 0;

	lanes_counts(&counts);
	for (unsigned i = 0; i < KINDS; i++)
		errors += counts.errors[i];
	lanes_print_errors();
	pauses_print();
	printf("violations=%llu errors=%llu mixed=%llu", (unsigned long long)model_violations(),
	       (unsigned long long)errors, (unsigned long long)model_mixed());
	for (unsigned i = 0; i < KINDS; i++)
		printf(" %s=%llu", kind_names[i], (unsigned long long)counts.done[i]);
	printf(" fua=%llu\n", (unsigned long long)counts.fua);
	if (model_violations())
		return 1;
	return errors && !options.may_fail ? 2 : 0;
}

static void use(const struct disk_ops *ops)
{
	if (disk.size < options.start + options.size || options.size < options.block)
		fail("registers: %s: too small", options.locator);
	model_create(options.size / options.block);
	if (!disk.can_multi_conn && options.lanes > 1) {
		options.depth = options.lanes * options.depth < MAX_DEPTH ?
					options.lanes * options.depth :
					MAX_DEPTH;
		options.lanes = 1; /* one connection's flush says nothing of another's writes */
	}
	lanes_start(ops, &disk);
	puts("begun");
	fflush(stdout);
	if (options.seconds > 0)
		sleep_until_end();
	else
		obey_until_end();
	lanes_stop();
	lanes_look();
}

int main(int argc, char **argv)
{
	const struct disk_ops *ops;

	parse(argc, argv);
	now();
	ops = options.by_nbd ? &nbd_disk : &ndio_disk;
	ops->open(&disk);
	if (options.verify) {
		model_open();
		lanes_verify(ops, &disk);
	} else {
		use(ops);
	}
	lanes_close();
	ops->close();
	return print_result();
}
