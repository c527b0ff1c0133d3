#include "secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "pin.h"

static void say_unlockable(struct error *err, int errnum)
{
	struct rlimit limit;

	if ((errnum == ENOMEM || errnum == EPERM) && !getrlimit(RLIMIT_MEMLOCK, &limit) &&
	    limit.rlim_cur != RLIM_INFINITY)
		error_set(err, errnum,
			  "cannot lock memory for the key: "
			  "the locked-memory limit is %llu bytes (raise it with ulimit -l)",
			  (unsigned long long)limit.rlim_cur);
	else
		error_set(err, errnum, "cannot lock memory for the key: %s", strerror(errnum));
}

void *secret_alloc(size_t size, struct error *err)
{
	void *secret;
	int ret;

	secret = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (secret == MAP_FAILED) {
		error_set(err, errno, "cannot allocate memory for the key: %s",
			  strerror(errno));
		return NULL;
	}
	if (madvise(secret, size, MADV_DONTDUMP) < 0) {
		error_set(err, errno, "cannot keep the key out of core dumps: %s",
			  strerror(errno));
		goto unmap;
	}
	ret = pin_range(secret, size);
	if (ret < 0) {
		say_unlockable(err, -ret);
		goto unmap;
	}
	return secret;

unmap:
	munmap(secret, size);
	return NULL;
}

void secret_free(void *secret, size_t size)
{
	if (!secret)
		return;
	OPENSSL_cleanse(secret, size);
	unpin_range(secret, size);
	munmap(secret, size);
}

void secret_no_dumps(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
