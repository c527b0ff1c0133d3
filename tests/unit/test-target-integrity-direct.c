/* A volume with integrity that is written directly: when its tags are written without a flush, what is told
 * of those that can't be, and how much memory they take. And what one that rests, also with a journal, looks
 * at meanwhile. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "integrity/tags.h"
#include "integrity/target-integrity.h"
#include "trusted-disk.h"

#define OTHERS 2 /* queues besides the disk's */

static struct trusted_disk disk;
static struct target_queue *others[OTHERS];

static void open_others(void)
{
	for (unsigned i = 0; i < OTHERS; i++) {
		others[i] =
			disk.target->ops->queue_open(disk.target, 4, (struct bvec){ 0 }, &disk.err);
		assert_non_null(others[i]);
	}
}

static void close_others(void)
{
	for (unsigned i = 0; i < OTHERS; i++)
		disk.target->ops->queue_close(others[i]);
}

static struct target_integrity_facts facts_of_disk(void)
{
	struct target_integrity_facts facts;

	target_integrity_facts(disk.target, &facts);
	return facts;
}

static void open_written(bool untrusted)
{
	trusted_disk_init(&disk, false);
	disk.untrusted = untrusted;
	assert_int_equal(trusted_disk_open(&disk), 0);
	open_others();
	assert_int_equal(trusted_disk_write(&disk, 10, 3, false), 0);
	assert_int_equal(facts_of_disk().dirty_pages, 1);
}

static void close_all(void)
{
	close_others();
	trusted_disk_close(&disk);
}

/* ---- the end ---- */

/* Nothing is said of it. */
static void tags_are_written_at_the_end(void **state)
{
	(void)state;
	open_written(true);
	close_all();
	assert_int_equal(disk.told, 0);
	assert_int_equal(trusted_disk_open(&disk), 0);
	assert_int_equal(trusted_disk_read(&disk, 11), disk.written[11]);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

static void what_cant_be_written_is_told_once(void **state)
{
	(void)state;
	open_written(true);
	disk.is_cut = true;
	close_all();
	assert_int_equal(disk.told, 1);
	trusted_disk_free(&disk);
}

static void lost_connections_are_told_too(void **state)
{
	for (int untrusted = 0; untrusted < 2; untrusted++) {
		(void)state;
		open_written(untrusted);
		disk.below.is_down = true;
		close_all();
		assert_int_equal(disk.told, 1);
		trusted_disk_free(&disk);
	}
}

/* ---- nothing is asked for ---- */

/* It sleeps for a while, and then they are written. */
static void tags_are_written_when_it_is_idle(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	for (int untrusted = 0; untrusted < 2; untrusted++) {
		(void)state;
		open_written(untrusted);
		assert_null(disk.target->ops->poll(disk.queue, true, fd));
		assert_int_equal(facts_of_disk().dirty_pages, 0);
		close_all();
		assert_int_equal(disk.told, 0);
		trusted_disk_free(&disk);
	}
	close(fd);
}

/* Who is woken has something to do: they stay as they are. */
static void not_when_it_is_woken(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);

	(void)state;
	open_written(true);
	assert_null(disk.target->ops->poll(disk.queue, true, fd));
	assert_int_equal(facts_of_disk().dirty_pages, 1);
	close_all();
	trusted_disk_free(&disk);
	close(fd);
}

static int woken_fd;

static void wake_up(void *unused)
{
	(void)unused;
	assert_int_equal(eventfd_write(woken_fd, 1), 0);
}

/* Also while it sleeps: connections that are lost come back all together, its own, too. Here whoever is
 * looked at wakes it, long before that is over. */
static void connections_are_looked_at_meanwhile(void **state)
{
	woken_fd = eventfd(0, EFD_CLOEXEC);
	for (int journal = 0; journal < 2; journal++) {
		(void)state;
		trusted_disk_init(&disk, journal);
		assert_int_equal(trusted_disk_open(&disk), 0);
		assert_int_equal(trusted_disk_write(&disk, 10, 3, false), 0);
		disk.left = 1000;
		disk.below.looked = wake_up;
		assert_null(disk.target->ops->poll(disk.queue, true, woken_fd));
		assert_null(disk.below.looked);
		assert_int_equal(disk.left, 1000); /* nothing was written */
		disk.left = -1;
		trusted_disk_close(&disk);
		trusted_disk_free(&disk);
		eventfd_read(woken_fd, &(eventfd_t){ 0 });
	}
	close(woken_fd);
}

/* ---- memory ---- */

#define AREAS (TRUSTED_BLOCKS / TRUSTED_SMALL)

/* The trust file can't be written, so that no tag may be, and nobody flushes. From some place on writes fail,
 * before they change anything. */
static void who_makes_too_many_dirty_is_told(void **state)
{
	unsigned done = 0;

	(void)state;
	trusted_disk_init_small(&disk);
	assert_int_equal(trusted_disk_open(&disk), 0);
	disk.trust.error = -EIO;
	for (unsigned i = 0; i < AREAS; i++) {
		unsigned block = i * TRUSTED_SMALL;
		int ret = trusted_disk_write(&disk, block, 1, false);

		assert_true(ret == 0 || ret == -EIO);
		done += ret == 0;
		disk.written[block] -= ret < 0;
		assert_int_equal(trusted_disk_read(&disk, block), disk.written[block]);
	}
	assert_int_equal(done, TAGS_LEAST);
	assert_int_equal(facts_of_disk().dirty_pages, TAGS_LEAST);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* What nobody flushes is in doubt, and stays in memory; not more of it than there is room for. */
static void areas_in_doubt_are_settled_for_room(void **state)
{
	(void)state;
	trusted_disk_init_small(&disk);
	assert_int_equal(trusted_disk_open(&disk), 0);
	for (unsigned i = 0; i < AREAS; i++)
		assert_int_equal(trusted_disk_write(&disk, i * TRUSTED_SMALL, 1, false), 0);
	assert_in_range(facts_of_disk().areas, 1, 2 * TAGS_LEAST);
	trusted_disk_kill(&disk);
	disk.is_cut = false;
	assert_int_equal(trusted_disk_open(&disk), 0);
	trusted_disk_check(&disk);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

/* Of what is lost a file tells once, and here it tells a sweep that nobody asked for: a flush mustn't succeed after
 * that. */
static void a_flush_that_failed_has_failed_for_good(void **state)
{
	(void)state;
	trusted_disk_init_small(&disk);
	assert_int_equal(trusted_disk_open(&disk), 0);
	disk.below.failing = 1;
	for (unsigned i = 0; i < AREAS && disk.below.failing > 0; i++)
		trusted_disk_write(&disk, i * TRUSTED_SMALL, 1, false);
	assert_int_equal(disk.below.failing, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(trusted_disk_flush(&disk), -EIO);
	trusted_disk_kill(&disk);
	trusted_disk_free(&disk);
}

/* ---- another thread writes tags ---- */

static pthread_t own_thread;
static sem_t is_held, may_go;

/* The first write of another thread's. */
static void hold_the_other(void *opaque)
{
	if (!pthread_equal(pthread_self(), own_thread)) {
		sem_post(&is_held);
		sem_wait(&may_go);
		return;
	}
	pthread_mutex_lock(&disk.below.lock);
	disk.below.wrote = hold_the_other;
	pthread_mutex_unlock(&disk.below.lock);
	(void)opaque;
}

static void open_with_spares(bool untrusted)
{
	trusted_disk_init_small(&disk);
	disk.untrusted = untrusted;
	disk.spares = true;
	disk.cache = 0; /* the usual one */
	assert_int_equal(trusted_disk_open(&disk), 0);
}

/* It is held in the middle; whoever reads and writes goes on, and a flush waits. */
static void nobody_stands_still_while_tags_are_written(void **state)
{
	(void)state;
	own_thread = pthread_self();
	sem_init(&is_held, 0, 0);
	sem_init(&may_go, 0, 0);
	alarm(60);
	for (int untrusted = 0; untrusted < 2; untrusted++) {
		open_with_spares(untrusted);
		disk.below.wrote = hold_the_other;
		for (unsigned i = 0; i < AREAS; i++)
			assert_int_equal(trusted_disk_write(&disk, i * TRUSTED_SMALL, 1, false), 0);
		sem_wait(&is_held);
		assert_int_equal(trusted_disk_write(&disk, 1, 1, false), 0);
		assert_int_equal(trusted_disk_read(&disk, 1), disk.written[1]);
		assert_true(facts_of_disk().dirty_pages > 0);
		sem_post(&may_go);
		assert_int_equal(trusted_disk_flush(&disk), 0);
		assert_int_equal(facts_of_disk().dirty_pages, 0);
		trusted_disk_kill(&disk);
		disk.is_cut = false;
		assert_int_equal(trusted_disk_open(&disk), 0);
		trusted_disk_check(&disk);
		trusted_disk_close(&disk);
		assert_int_equal(disk.told, 0);
		trusted_disk_free(&disk);
	}
	alarm(0);
	sem_destroy(&may_go);
	sem_destroy(&is_held);
}

/* Whatever the other thread was at, and several times: it is gone with the last queue. */
static void it_ends_with_the_last_queue(void **state)
{
	(void)state;
	open_with_spares(true);
	for (unsigned round = 0; round < 3; round++) {
		open_others();
		for (unsigned i = 0; i < AREAS; i++)
			assert_int_equal(trusted_disk_write(&disk, i * TRUSTED_SMALL, 1, false), 0);
		close_others();
	}
	trusted_disk_close(&disk);
	assert_int_equal(disk.told, 0);
	assert_int_equal(trusted_disk_open(&disk), 0);
	for (unsigned i = 0; i < AREAS; i++)
		assert_int_equal(trusted_disk_read(&disk, i * TRUSTED_SMALL),
				 disk.written[i * TRUSTED_SMALL]);
	trusted_disk_close(&disk);
	trusted_disk_free(&disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tags_are_written_at_the_end),
		cmocka_unit_test(what_cant_be_written_is_told_once),
		cmocka_unit_test(lost_connections_are_told_too),
		cmocka_unit_test(tags_are_written_when_it_is_idle),
		cmocka_unit_test(not_when_it_is_woken),
		cmocka_unit_test(connections_are_looked_at_meanwhile),
		cmocka_unit_test(who_makes_too_many_dirty_is_told),
		cmocka_unit_test(areas_in_doubt_are_settled_for_room),
		cmocka_unit_test(a_flush_that_failed_has_failed_for_good),
		cmocka_unit_test(nobody_stands_still_while_tags_are_written),
		cmocka_unit_test(it_ends_with_the_last_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
