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
 *   mark NAME    something is about to be done to the server
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

enum {
	NBD = 256,
	KEY,
	CONNECTIONS,
	RECONNECT,
	ANSWER,
	DISCARD,
	LANES,
	DEPTH,
	START,
	SIZE,
	BLOCK,
	SEED,
	NO_TRIM,
	SECONDS,
	STUCK,
	STATE,
	VERIFY,
	MAY_FAIL,
};

static const struct option long_options[] = {
	{ "nbd", no_argument, NULL, NBD },
	{ "key", required_argument, NULL, KEY },
	{ "connections", required_argument, NULL, CONNECTIONS },
	{ "reconnect", required_argument, NULL, RECONNECT },
	{ "answer", required_argument, NULL, ANSWER },
	{ "discard", no_argument, NULL, DISCARD },
	{ "lanes", required_argument, NULL, LANES },
	{ "depth", required_argument, NULL, DEPTH },
	{ "start", required_argument, NULL, START },
	{ "size", required_argument, NULL, SIZE },
	{ "block", required_argument, NULL, BLOCK },
	{ "seed", required_argument, NULL, SEED },
	{ "no-trim", no_argument, NULL, NO_TRIM },
	{ "seconds", required_argument, NULL, SECONDS },
	{ "stuck", required_argument, NULL, STUCK },
	{ "state", required_argument, NULL, STATE },
	{ "verify", no_argument, NULL, VERIFY },
	{ "may-fail", no_argument, NULL, MAY_FAIL },
	{ NULL, 0, NULL, 0 },
};

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

static void set_flag(int option)
{
	switch (option) {
	case NBD:
		options.by_nbd = true;
		break;
	case DISCARD:
		options.discard = true;
		break;
	case NO_TRIM:
		options.no_trim = true;
		break;
	case VERIFY:
		options.verify = true;
		break;
	case MAY_FAIL:
		options.may_fail = true;
		break;
	default:
		fail("registers: see the start of main.c");
	}
}

static void set_option(int option, const char *value)
{
	switch (option) {
	case KEY:
		options.key_path = value;
		break;
	case CONNECTIONS:
		options.connections = number(value);
		break;
	case RECONNECT:
		options.reconnect = number(value);
		break;
	case ANSWER:
		options.answer = number(value);
		break;
	case LANES:
		options.lanes = number(value);
		break;
	case DEPTH:
		options.depth = number(value);
		break;
	case START:
		options.start = number(value);
		break;
	case SIZE:
		options.size = number(value);
		break;
	case BLOCK:
		options.block = number(value);
		break;
	case SEED:
		options.seed = number(value);
		break;
	case SECONDS:
		options.seconds = strtod(value, NULL);
		break;
	case STUCK:
		options.stuck = number(value);
		break;
	case STATE:
		options.state_path = value;
		break;
	default:
		set_flag(option);
	}
}

static void parse(int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		set_option(option, optarg);
	if (optind + 1 != argc || options.lanes < 1 || options.lanes > MAX_LANES ||
	    options.depth < 1 || options.depth > MAX_DEPTH || options.block < SECTOR ||
	    options.block % SECTOR || options.block > 64 * 1024 ||
	    (options.verify && !options.state_path))
		fail("registers: see the start of main.c");
	options.locator = argv[optind];
}

/* ---- commands ---- */

/* False: it is to end. */
static bool obey(const char *line)
{
	if (strncmp(line, "mark ", 5) == 0) {
		pauses_mark(line + 5);
	} else if (strcmp(line, "up") == 0) {
		pauses_up();
	} else if (strncmp(line, "wait ", 5) == 0) {
		lanes_wait(number(line + 5));
		printf("ready violations=%llu\n", (unsigned long long)model_violations());
		fflush(stdout);
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
