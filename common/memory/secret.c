#include "memory/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/align.h"
#include "memory/pin.h"

#define MOST_AT_ONCE 65536 /* bytes that a key grows by */

/* what: "the key" */
static int say_unlockable(struct error *err, int errnum, const char *what)
{
	struct rlimit limit;

	if ((errnum == ENOMEM || errnum == EPERM) && !getrlimit(RLIMIT_MEMLOCK, &limit) &&
	    limit.rlim_cur != RLIM_INFINITY)
		return error_set(err, errnum,
				 "cannot lock memory for %s: "
				 "the locked-memory limit is %llu bytes (raise it with ulimit -l)",
				 what, (unsigned long long)limit.rlim_cur);
	return error_set(err, errnum, "cannot lock memory for %s: %s", what, strerror(errnum));
}

/* Pages of its own that no core dump has. */
static void *undumped_alloc(size_t size, const char *what, struct error *err)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED) {
		error_set(err, errno, "cannot allocate memory for %s: %s", what, strerror(errno));
		return NULL;
	}
	if (madvise(base, size, MADV_DONTDUMP) < 0) {
		error_set(err, errno, "cannot keep %s out of core dumps: %s", what,
			  strerror(errno));
		munmap(base, size);
		return NULL;
	}
	return base;
}

static int lock_secret(void *secret, size_t size, struct error *err)
{
	int ret = pin_range(secret, size);

	return ret < 0 ? say_unlockable(err, -ret, "the key") : 0;
}

void *secret_alloc(size_t size, struct error *err)
{
	void *secret = undumped_alloc(size, "the key", err);

	if (secret && lock_secret(secret, size, err) < 0) {
		munmap(secret, size);
		return NULL;
	}
	return secret;
}

void secret_free(void *secret, size_t size)
{
	if (!secret)
		return;
	OPENSSL_cleanse(secret, size);
	unpin_range(secret, size);
	munmap(secret, size);
}

int secret_buffers_make(struct secret_buffers *buffers, size_t size, struct error *err)
{
	int ret;

	*buffers = (struct secret_buffers){ .size = size };
	errno = 0;
	buffers->base = undumped_alloc(size, "buffers", err);
	if (!buffers->base)
		return errno ? -errno : -ENOMEM;
	ret = pin_range(buffers->base, size);
	buffers->locked = ret == 0;
	if (ret < 0)
		say_unlockable(err, -ret, "buffers");
	return 0;
}

void secret_buffers_free(struct secret_buffers *buffers)
{
	if (!buffers->base)
		return;
	OPENSSL_cleanse(buffers->base, buffers->size);
	if (buffers->locked)
		unpin_range(buffers->base, buffers->size);
	munmap(buffers->base, buffers->size);
	*buffers = (struct secret_buffers){ 0 };
}

/* ---- keys that grow ---- */

/* By how much one grows that has so many bytes locked. What is locked is so made of the same parts
 * whoever takes them away again. */
static size_t next_part(const struct key *key, size_t locked)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t part = round_down(locked / 4, page);

	part = part < page ? page : part > MOST_AT_ONCE ? MOST_AT_ONCE : part;
	return part < key->room - locked ? part : key->room - locked;
}

int key_make(struct key *key, size_t max, struct error *err)
{
	*key = (struct key){ .room = round_up(max, (size_t)sysconf(_SC_PAGESIZE)) };
	key->data = undumped_alloc(key->room, "the key", err);
	return key->data ? key_grow(key, err) : -ENOMEM;
}

int key_grow(struct key *key, struct error *err)
{
	size_t part = next_part(key, key->locked);
	int ret;

	if (part == 0)
		return error_set(err, ENOBUFS, "no room for such a key");
	ret = lock_secret((char *)key->data + key->locked, part, err);
	if (ret == 0)
		key->locked += part;
	return ret;
}

/* Unlocks the parts that begin at len bytes or later. What was in them is cleansed. */
static void unlock_from(struct key *key, size_t len)
{
	size_t locked = key->locked, at = 0, part;

	for (key->locked = 0; at < locked; at += part) {
		part = next_part(key, at);
		if (at < len) {
			key->locked = at + part;
			continue;
		}
		OPENSSL_cleanse((char *)key->data + at, part);
		unpin_range((char *)key->data + at, part);
	}
}

void key_fit(struct key *key)
{
	unlock_from(key, key->len ? key->len : 1);
}

int key_set(struct key *key, const void *data, size_t len, struct error *err)
{
	int ret = key_make(key, len ? len : 1, err);

	while (ret == 0 && key->locked < len)
		ret = key_grow(key, err);
	if (ret == 0 && len)
		memcpy(key->data, data, len);
	if (ret == 0)
		key->len = len;
	return ret;
}

void key_clear(struct key *key)
{
	if (key->data) {
		unlock_from(key, 0);
		munmap(key->data, key->room);
	}
	*key = (struct key){ .data = NULL };
}

static atomic_bool no_dumps;

void secret_no_dumps(void)
{
	atomic_store(&no_dumps, true);
	prctl(PR_SET_DUMPABLE, 0);
}

void secret_after_fork(void)
{
	if (atomic_load(&no_dumps))
		secret_no_dumps();
}
