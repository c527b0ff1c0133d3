/* records write URI FIRST: writes records, each once, from number FIRST on until the server
 * goes away or the volume is full, and prints the number of each that the server acknowledged
 * as durable: by FUA, or by a flush after it. Records are no whole blocks, so neighbours that
 * are written by other connections share blocks with them.
 *
 * records verify URI: reads numbers, and checks that those records are there. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

#define THREADS   8
#define RECORD    9001 /* bytes */
#define MAX_BATCH 4    /* records before a flush */

static const char *uri;
static atomic_ulong next;
static uint64_t count; /* records that fit */

static void make_record(uint64_t number, uint8_t *record)
{
	uint64_t random = (number + 1) * 0x9e3779b97f4a7c15;

	for (unsigned i = 0; i < RECORD; i++)
		record[i] = random_next(&random) >> 56;
}

static void acknowledged(uint64_t number)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "%llu\n", (unsigned long long)number);

	if (write(STDOUT_FILENO, line, len) != len)
		fail("records: can't print");
}

/* Either some records and a flush, or one with FUA. -1 when the server is gone, or at the end. */
static int write_some(struct nbd_handle *nbd, uint64_t *random)
{
	unsigned batch = random_below(random, MAX_BATCH + 1); /* 0: FUA */
	uint64_t numbers[MAX_BATCH];
	uint8_t record[RECORD];

	for (unsigned i = 0; i == 0 || i < batch; i++) {
		numbers[i] = atomic_fetch_add(&next, 1);
		if (numbers[i] >= count)
			return -1;
		make_record(numbers[i], record);
		if (nbd_pwrite(nbd, record, RECORD, numbers[i] * RECORD,
			       batch ? 0 : LIBNBD_CMD_FLAG_FUA) < 0)
			return -1;
	}
	if (batch && nbd_flush(nbd, 0) < 0)
		return -1;
	for (unsigned i = 0; i == 0 || i < batch; i++)
		acknowledged(numbers[i]);
	return 0;
}

static void *writer(void *opaque)
{
	struct nbd_handle *nbd = opaque;
	uint64_t random = (uintptr_t)opaque;

	while (write_some(nbd, &random) == 0)
		;
	nbd_close(nbd);
	return NULL;
}

static int write_records(void)
{
	pthread_t threads[THREADS];
	struct nbd_handle *handles[THREADS];

	for (unsigned t = 0; t < THREADS; t++)
		handles[t] = connect_to(uri);
	count = nbd_get_size(handles[0]) / RECORD;
	for (unsigned t = 0; t < THREADS; t++)
		if (pthread_create(&threads[t], NULL, writer, handles[t]) != 0)
			fail("records: can't make a thread");
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	return 0;
}

static int verify_records(void)
{
	struct nbd_handle *nbd = connect_to(uri);
	uint8_t wanted[RECORD], got[RECORD];
	unsigned long long number;
	unsigned checked = 0, lost = 0;

	while (scanf("%llu", &number) == 1) {
		make_record(number, wanted);
		if (nbd_pread(nbd, got, RECORD, number * RECORD, 0) < 0)
			fail("records: %s", nbd_get_error());
		if (memcmp(got, wanted, RECORD) != 0 && lost++ < 10)
			fprintf(stderr, "record %llu is lost\n", number);
		checked++;
	}
	disconnect(nbd);
	printf("%u records, %u lost\n", checked, lost);
	return lost > 0 || checked == 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "write") == 0) {
		uri = argv[2];
		atomic_store(&next, strtoull(argv[3], NULL, 0));
		return write_records();
	}
	if (argc == 3 && strcmp(argv[1], "verify") == 0) {
		uri = argv[2];
		return verify_records();
	}
	fail("usage: records write URI FIRST, or records verify URI");
}
