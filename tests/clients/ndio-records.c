/* ndio-records [-c CONNECTIONS] read LOCATOR | write LOCATOR [FILE] | verify LOCATOR FILE
 *
 * A disk of numbered records, each of which tells its number; several are in flight.
 *
 *   write   writes all, in a random order; FILE gets the number of each that was acknowledged,
 *           as soon as it is
 *   read    reads all, in a random order, and compares
 *   verify  reads those whose numbers FILE has, and compares
 *
 * Status 0: all is well. 1: something failed, told on stderr; what didn't fail was right. 2: data
 * that were read are wrong. 3: a request never ended. */
#include <errno.h>
#include <fcntl.h>

#include "ndio-client.h"

#define RECORD  9001 /* bytes: no whole blocks */
#define DEPTH   24
#define TIMEOUT 15 /* seconds for a request; nothing here is slow */

enum what { READ, WRITE, VERIFY };

struct slot {
	uint64_t number;
	uint8_t data[RECORD];
	struct iovec iov;
};

static struct opening opening;
static enum what what;
static FILE *numbers;
static struct ndio_volume *volume;
static struct ndio_queue *queue;
static struct slot slots[DEPTH];
static uint64_t count; /* records that fit */
static unsigned in_flight, done, failed, wrong;

static void make_record(uint64_t number, uint8_t *data)
{
	uint64_t random = (number + 1) * 0x9e3779b97f4a7c15;

	for (unsigned i = 0; i < RECORD; i++)
		data[i] = random_next(&random) >> 56;
}

/* Each number once, in a random order: a step that shares no factor with their count. */
static bool next_number(uint64_t *number)
{
	static uint64_t step, at, given;

	if (what == VERIFY)
		return fscanf(numbers, "%lu", number) == 1;
	if (!step) {
		uint64_t random = getpid() + time(NULL) * 1000003;
		uint64_t a, b;

		do {
			step = 1 + random_below(&random, count);
			for (a = count, b = step; b;) {
				uint64_t rest = a % b;

				a = b;
				b = rest;
			}
		} while (a != 1);
		at = random_below(&random, count);
	}
	at = (at + step) % count;
	*number = at;
	return given++ < count;
}

static void failure(const struct slot *slot, int error)
{
	if (failed++ < 3)
		fprintf(stderr, "record %lu: %s: %s\n", slot->number, strerrorname_np(-error),
			strerror(-error));
}

/* False when there is nothing more to do. */
static bool start(struct slot *slot)
{
	const struct ndio_completion completion = { .queue = queue, .opaque = slot };
	uint64_t start;
	int ret;

	if (failed || !next_number(&slot->number))
		return false;
	start = slot->number * RECORD;
	slot->iov = (struct iovec){ slot->data, RECORD };
	if (what == WRITE) {
		make_record(slot->number, slot->data);
		ret = ndio_aio_pwritev(volume, &slot->iov, 1, start, 0, &completion);
	} else {
		memset(slot->data, 0, RECORD);
		ret = ndio_aio_preadv(volume, &slot->iov, 1, start, 0, &completion);
	}
	if (ret < 0)
		failure(slot, ret);
	else
		in_flight++;
	return ret == 0;
}

static void finish(struct slot *slot, int error)
{
	uint8_t record[RECORD];

	in_flight--;
	done++;
	if (error) {
		failure(slot, error);
		return;
	}
	if (what == WRITE) {
		if (numbers && (fprintf(numbers, "%lu\n", slot->number) < 0 || fflush(numbers)))
			fail("can't write a number");
		return;
	}
	make_record(slot->number, record);
	if (memcmp(record, slot->data, RECORD) != 0 && wrong++ < 3)
		fprintf(stderr, "record %lu is wrong\n", slot->number);
}

static void run(void)
{
	for (int i = 0; i < DEPTH && start(&slots[i]); i++)
		;
	while (in_flight > 0) {
		struct ndio_event event;
		int ret = ndio_queue_reap(queue, &event, 1, TIMEOUT * 1000);

		if (ret != 1) {
			fprintf(stderr, "a request never ended\n");
			exit(3);
		}
		finish(event.opaque, event.error);
		start(event.opaque);
	}
}

static void parse(int argc, char **argv)
{
	static const char *const names[] = { "read", "write", "verify" };
	int opt, arguments;

	while ((opt = getopt(argc, argv, "c:")) != -1) {
		switch (opt) {
		case 'c':
			opening.connections = atoi(optarg);
			break;
		default:
			fail("see the start of ndio-records.c");
		}
	}
	arguments = argc - optind;
	while (arguments > 0 && what <= VERIFY && strcmp(argv[optind], names[what]) != 0)
		what++;
	if (arguments < 2 || what > VERIFY || arguments > 3 - (what == READ) ||
	    arguments < 2 + (what == VERIFY))
		fail("see the start of ndio-records.c");
	opening.locator = argv[optind + 1];
	if (arguments > 2) {
		numbers = fopen(argv[optind + 2], what == WRITE ? "w" : "r");
		if (!numbers)
			fail("%s: %s", argv[optind + 2], strerror(errno));
	}
}

int main(int argc, char **argv)
{
	int ret = 0;

	parse(argc, argv);
	if (try_open(&opening, &volume) < 0 || ndio_queue_new(&queue) < 0)
		fail("%s", ndio_error());
	count = info_of(volume).size / RECORD;
	run();
	if (what == WRITE && !failed)
		ret = ndio_flush(volume);
	if (ret < 0)
		fprintf(stderr, "flush: %s\n", ndio_error());
	ndio_close(volume, NDIO_CLOSE_WAIT);
	ndio_queue_free(queue);
	printf("%u records, %u failed, %u wrong\n", done, failed, wrong);
	return wrong ? 2 : failed || ret < 0;
}
