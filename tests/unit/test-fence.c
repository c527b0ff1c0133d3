/* The fence: which names have a session, who is fenced by whom, and who waits for what. Where
 * somebody must not have gone on, what it would have been too early for is done late, and the order
 * of the two is looked at afterwards. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "nbd/fence.h"

#define PATIENCE 60 /* seconds; then somebody waits forever */
#define A        "00112233445566778899aabbccddeeff"
#define B        "00112233445566778899aabbccddeefe" /* in one bit */
#define OF_A     ";ndio-session=" A "."
#define OF_B     ";ndio-session=" B "."

static struct fences fences;

static int set_up(void **state)
{
	fences = (struct fences)FENCES_INIT;
	alarm(PATIENCE);
	return 0;
}

/* At the end of each test. */
static void nothing_is_left(void)
{
	assert_null(fences.handles);
}

static struct fence_handle *opened(const char *name)
{
	struct fence_handle *handle;

	assert_int_equal(fence_open(&fences, name, &handle, NULL), 0);
	return handle;
}

static void late(const char *name)
{
	struct fence_handle *handle;

	assert_int_equal(fence_open(&fences, name, &handle, NULL), -ESTALE);
}

/* A request that is run at once. */
static int request(struct fence_handle *handle)
{
	int ret = fence_enter(handle);

	if (ret == 0)
		fence_leave(handle);
	return ret;
}

static void wait_until_fenced(struct fence_handle *handle)
{
	while (request(handle) == 0)
		sched_yield();
	assert_int_equal(request(handle), -ESHUTDOWN);
}

/* ---- names ---- */

static void names_that_have_a_session(void **state)
{
	static const struct {
		const char *name;
		uint64_t epoch;
	} good[] = {
		{ OF_A "1", 1 },
		{ "disk" OF_A "9", 9 },
		{ "/a/b.c" OF_A "ab", 0xab },
		{ "a;b=c;" OF_A "10", 16 },
		{ "d\303\251" OF_A "ffffffffffffffff", UINT64_MAX },
		{ "x" OF_B "7" OF_A "8", 8 }, /* the first one is the user's */
	};
	const uint8_t want[SESSION_ID] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
					   0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint8_t session[SESSION_ID] = { 0 };
		uint64_t epoch = 0;

		assert_true(fence_parse(good[i].name, session, &epoch));
		assert_int_equal(epoch, good[i].epoch);
		assert_memory_equal(session, want, sizeof(want));
	}
}

static void names_that_are_the_users(void **state)
{
	static const char *const bad[] = {
		"",
		".",
		"disk",
		"disk.1",
		";",
		";ndio-session=",
		";ndio-session=.1",
		";ndio-session=" A,
		OF_A,                                               /* no epoch */
		OF_A "0",                                           /* there is none */
		OF_A "01",                                          /* a zero in front */
		OF_A "10000000000000000",                           /* 17 digits */
		OF_A "A",                                           /* capitals */
		OF_A "1 ",                                          /* something behind */
		OF_A "1;",                                          /* likewise */
		OF_A "1.",                                          /* likewise */
		OF_A "1.1",                                         /* likewise */
		OF_A "0x1",                                         /* what strtoull would take */
		OF_A "+1",                                          /* likewise */
		OF_A "-1",                                          /* likewise */
		OF_A " 1",                                          /* likewise */
		"ndio-session=" A ".1",                             /* no semicolon */
		":ndio-session=" A ".1",                            /* another */
		";ndio-session:" A ".1",                            /* likewise */
		";NDIO-SESSION=" A ".1",                            /* likewise */
		";ndio-session= " A ".1",                           /* likewise */
		";ndio-session=0" A ".1",                           /* 33 digits */
		"x0112233445566778899aabbccddeeff.1",               /* nothing but digits */
		";ndio-session=0112233445566778899aabbccddeeff.1",  /* 31 */
		";ndio-session=00112233445566778899AABBCCDDEEFF.1", /* capitals */
		";ndio-session=0g112233445566778899aabbccddeeff.1", /* no digit */
		";ndio-session=0 112233445566778899aabbccddeeff.1", /* likewise */
		";ndio-session=001122334455667.8899aabbccddeeff.1", /* likewise */
		";ndio-session=00112233445566778899aabbccddeef;.1", /* likewise */
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint8_t session[SESSION_ID];
		uint64_t epoch;

		if (fence_parse(bad[i], session, &epoch))
			fail_msg("'%s' has a session", bad[i]);
	}
}

static void an_identity_of_its_own(void **state)
{
	struct fences other = FENCES_INIT;
	char instance[2][33], rest[2][16];

	assert_int_equal(fences_identify(&fences, true, NULL), 0);
	assert_int_equal(fences_identify(&other, false, NULL), 0);
	assert_int_equal(sscanf(fences.identity, "ndio " NDIO_VERSION " instance=%32[0-9a-f] %15s",
				instance[0], rest[0]),
			 2);
	/* One that isn't the last before the disk doesn't say that it fences. */
	assert_int_equal(sscanf(other.identity, "ndio " NDIO_VERSION " instance=%32[0-9a-f]%15s",
				instance[1], rest[1]),
			 1);
	assert_int_equal(strlen(instance[0]), 32);
	assert_string_equal(rest[0], "fences");
	assert_string_not_equal(instance[0], instance[1]);
}

/* ---- who is fenced ---- */

static void a_newer_epoch_fences_all_older_ones(void **state)
{
	struct fence_handle *one = opened("a" OF_A "1"), *too = opened("b" OF_A "1");
	struct fence_handle *two = opened(OF_A "2"), *four;

	assert_int_equal(request(one), -ESHUTDOWN);
	assert_int_equal(request(too), -ESHUTDOWN);
	assert_int_equal(request(two), 0);
	four = opened(OF_A "4");
	assert_int_equal(request(one), -ESHUTDOWN);
	assert_int_equal(request(two), -ESHUTDOWN);
	assert_int_equal(request(four), 0);
	fence_close(one);
	fence_close(four);
	assert_int_equal(request(two), -ESHUTDOWN);
	fence_close(two);
	fence_close(too);
	nothing_is_left();
}

static void nobody_else_is_fenced(void **state)
{
	struct fence_handle *same = opened(OF_A "5"), *again = opened(OF_A "5");
	struct fence_handle *other = opened(OF_B "1"), *plain = opened("");
	struct fence_handle *alike = opened(OF_A "01"), *newer;

	assert_int_equal(fence_enter(other), 0);
	assert_int_equal(fence_enter(plain), 0);
	assert_int_equal(fence_enter(alike), 0);
	assert_int_equal(request(same), 0);
	assert_int_equal(request(again), 0);
	newer = opened(OF_A "6"); /* and waits for none of them */
	assert_int_equal(request(newer), 0);
	assert_int_equal(request(other), 0);
	assert_int_equal(request(plain), 0);
	assert_int_equal(request(alike), 0);
	fence_leave(other);
	fence_leave(plain);
	fence_leave(alike);
	fence_close(same);
	fence_close(again);
	fence_close(other);
	fence_close(plain);
	fence_close(alike);
	fence_close(newer);
	nothing_is_left();
}

static void an_older_epoch_is_refused(void **state)
{
	struct fence_handle *one = opened(OF_A "1"), *three = opened(OF_A "3"), *other;
	struct error err;

	late(OF_A "2");
	late(OF_A "1");
	assert_int_equal(fence_open(&fences, OF_A "2", &other, &err), -ESTALE);
	assert_string_equal(err.text, "a connection of a session's epoch 2 comes after one of 3");
	assert_int_equal(request(three), 0);
	fence_close(three);
	late(OF_A "2"); /* since the first one is still there */
	other = opened(OF_B "2");
	fence_close(other);
	other = opened(OF_A "3");
	fence_close(other);
	fence_close(one);
	nothing_is_left();
}

static void a_session_is_forgotten_with_its_last_handle(void **state)
{
	struct fence_handle *nine = opened(OF_A "9"), *also = opened(OF_A "9"), *one;

	fence_close(nine);
	late(OF_A "1");
	fence_close(also);
	assert_null(fences.handles);
	one = opened(OF_A "1");
	assert_int_equal(request(one), 0);
	fence_close(one);
	nothing_is_left();
}

static void what_is_left_open_is_cleared(void **state)
{
	opened(OF_A "1");
	opened(OF_A "2");
	opened("");
	fences_clear(&fences);
	nothing_is_left();
}

/* ---- who waits ---- */

static atomic_uint steps; /* numbers what happens, in order */

struct opener {
	pthread_t thread;
	const char *name;
	struct fence_handle *handle;
	int ret;
	unsigned step;
};

static void *open_it(void *opaque)
{
	struct opener *opener = opaque;

	opener->ret = fence_open(&fences, opener->name, &opener->handle, NULL);
	opener->step = atomic_fetch_add(&steps, 1);
	return NULL;
}

static void start(struct opener *opener, const char *name)
{
	*opener = (struct opener){ .name = name };
	assert_int_equal(pthread_create(&opener->thread, NULL, open_it, opener), 0);
}

static int end(struct opener *opener)
{
	pthread_join(opener->thread, NULL);
	return opener->ret;
}

/* Time for who goes on too early: no test fails by it that shouldn't. */
static unsigned next_step(void)
{
	usleep(20000);
	return atomic_fetch_add(&steps, 1);
}

static void opening_waits_for_what_older_ones_run(void **state)
{
	struct fence_handle *one = opened(OF_A "1"), *two = opened(OF_A "2");
	struct fence_handle *three = opened(OF_A "3");
	struct opener opener;
	unsigned step;

	fence_close(two);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fence_enter(three), 0);
	start(&opener, OF_A "4");
	wait_until_fenced(three);
	for (unsigned i = 0; i < 3; i++) {
		step = next_step();
		assert_int_equal(request(three), -ESHUTDOWN); /* it ends the wait of nobody */
		fence_leave(three);
	}
	assert_int_equal(end(&opener), 0);
	assert_true(opener.step > step);
	fence_close(one);
	fence_close(three);
	fence_close(opener.handle);
	nothing_is_left();
}

static void every_connection_of_the_new_epoch_waits(void **state)
{
	struct fence_handle *one = opened(OF_A "1"), *same = opened(OF_A "1");
	struct opener openers[3];
	unsigned step;

	assert_int_equal(fence_enter(one), 0);
	assert_int_equal(fence_enter(same), 0);
	for (unsigned i = 0; i < 3; i++)
		start(&openers[i], OF_A "2");
	wait_until_fenced(one);
	wait_until_fenced(same);
	next_step();
	fence_leave(one);
	fence_close(one); /* as it may be, while they wait for the other */
	step = next_step();
	fence_leave(same);
	fence_close(same);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(end(&openers[i]), 0);
		assert_true(openers[i].step > step);
		assert_int_equal(request(openers[i].handle), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		fence_close(openers[i].handle);
	nothing_is_left();
}

static void who_waits_fails_when_a_newer_one_comes(void **state)
{
	struct fence_handle *one = opened(OF_A "1"), *last;
	struct opener openers[3];
	unsigned step;

	assert_int_equal(fence_enter(one), 0);
	start(&openers[0], OF_A "2");
	start(&openers[1], OF_A "2");
	wait_until_fenced(one);
	start(&openers[2], OF_A "3");
	/* They end while the request still runs. */
	assert_int_equal(end(&openers[0]), -ESTALE);
	assert_int_equal(end(&openers[1]), -ESTALE);
	late(OF_A "2");
	step = next_step();
	fence_leave(one);
	assert_int_equal(end(&openers[2]), 0);
	assert_true(openers[2].step > step);
	last = opened(OF_A "3");
	assert_int_equal(request(last), 0);
	fence_close(one);
	fence_close(last);
	fence_close(openers[2].handle);
	nothing_is_left();
}

static void others_open_while_one_waits(void **state)
{
	struct fence_handle *one = opened(OF_A "1"), *plain, *other, *newer;
	struct opener opener;

	assert_int_equal(fence_enter(one), 0);
	start(&opener, OF_A "2");
	wait_until_fenced(one);
	plain = opened("disk");
	other = opened(OF_B "1");
	newer = opened(OF_B "2");
	assert_int_equal(request(plain), 0);
	assert_int_equal(request(newer), 0);
	fence_close(plain);
	fence_close(other);
	fence_close(newer);
	fence_leave(one);
	assert_int_equal(end(&opener), 0);
	fence_close(one);
	fence_close(opener.handle);
	nothing_is_left();
}

/* ---- many at once ---- */

#define CONNECTIONS 2
#define EPOCHS      500

static struct fence_handle *current[CONNECTIONS];
static atomic_uint epoch_of_current, newest_opened;
static atomic_bool over;
static atomic_uint entered, refused, wrong;

struct requester {
	pthread_t thread;
	unsigned connection;
	pthread_barrier_t *turn;
};

/* A newer epoch must not be open while this is run. */
static void run_request(unsigned epoch)
{
	for (unsigned i = 0; i < 50; i++) {
		if (atomic_load(&newest_opened) > epoch) {
			atomic_fetch_add(&wrong, 1);
			return;
		}
	}
	atomic_fetch_add(&entered, 1);
}

/* Sends requests by its connection until one is refused, in each epoch. */
static void *send_requests(void *opaque)
{
	struct requester *me = opaque;

	for (;;) {
		unsigned epoch;

		pthread_barrier_wait(me->turn);
		if (atomic_load(&over))
			return NULL;
		epoch = atomic_load(&epoch_of_current);
		while (fence_enter(current[me->connection]) == 0) {
			run_request(epoch);
			fence_leave(current[me->connection]);
		}
		atomic_fetch_add(&refused, 1);
		pthread_barrier_wait(me->turn);
	}
}

/* Opens the next epoch's connections while the older ones are busy. */
static void open_next(unsigned epoch, struct fence_handle *next[CONNECTIONS])
{
	char name[80];

	snprintf(name, sizeof(name), OF_A "%x", epoch);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		next[i] = opened(name);
		atomic_store(&newest_opened, epoch);
	}
}

static void nothing_enters_after_a_newer_one_was_opened(void **state)
{
	struct requester requesters[CONNECTIONS];
	struct fence_handle *next[CONNECTIONS];
	pthread_barrier_t turn;

	assert_int_equal(pthread_barrier_init(&turn, NULL, CONNECTIONS + 1), 0);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		requesters[i] = (struct requester){ .connection = i, .turn = &turn };
		assert_int_equal(
			pthread_create(&requesters[i].thread, NULL, send_requests, &requesters[i]),
			0);
	}
	open_next(1, current);
	for (unsigned epoch = 1; epoch < EPOCHS; epoch++) {
		unsigned before = atomic_load(&entered);

		atomic_store(&epoch_of_current, epoch);
		pthread_barrier_wait(&turn);
		while (epoch % 2 && atomic_load(&entered) - before < epoch % 64)
			sched_yield();
		open_next(epoch + 1, next);
		pthread_barrier_wait(&turn);
		for (unsigned i = 0; i < CONNECTIONS; i++)
			fence_close(current[i]);
		memcpy(current, next, sizeof(next));
	}
	atomic_store(&over, true);
	pthread_barrier_wait(&turn);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		pthread_join(requesters[i].thread, NULL);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		fence_close(current[i]);
	pthread_barrier_destroy(&turn);
	assert_int_equal(wrong, 0);
	assert_int_equal(refused, (EPOCHS - 1) * CONNECTIONS);
	assert_true(entered >= EPOCHS);
	nothing_is_left();
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_that_have_a_session),
		TEST(names_that_are_the_users),
		TEST(an_identity_of_its_own),
		TEST(a_newer_epoch_fences_all_older_ones),
		TEST(nobody_else_is_fenced),
		TEST(an_older_epoch_is_refused),
		TEST(a_session_is_forgotten_with_its_last_handle),
		TEST(what_is_left_open_is_cleared),
		TEST(opening_waits_for_what_older_ones_run),
		TEST(every_connection_of_the_new_epoch_waits),
		TEST(who_waits_fails_when_a_newer_one_comes),
		TEST(others_open_while_one_waits),
		TEST(nothing_enters_after_a_newer_one_was_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
