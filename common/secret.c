#include "secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "pin.h"

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

void *secret_alloc(size_t size, struct error *err)
{
	void *secret = undumped_alloc(size, "the key", err);
	int ret;

	if (!secret)
		return NULL;
	ret = pin_range(secret, size);
	if (ret < 0) {
		say_unlockable(err, -ret, "the key");
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

void secret_no_dumps(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
