#include "copy/digest.h"

#include <errno.h>
#include <stdio.h>

#include "base/align.h"
#include "base/thread.h"
#include "copy/slot.h"

#define ZEROES (256 * 1024) /* bytes that are added at a time */

bool digest_is_known(const char *name)
{
	EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
	bool known = md && EVP_MD_get_size(md) > 0 && !(EVP_MD_get_flags(md) & EVP_MD_FLAG_XOF);

	EVP_MD_free(md);
	return known;
}

/* The first slot whose piece isn't in the sum, or NULL. */
static struct slot *digest_next_slot(struct copy *copy)
{
	struct slot *first = NULL;

	for (unsigned i = 0; i < copy->nr_slots; i++) {
		struct slot *slot = &copy->slots[i];

		if (slot->digest != DIGEST_NONE && (!first || slot->offset < first->offset))
			first = slot;
	}
	return first;
}

/* The lock is held, but not meanwhile. */
static void digest_add(struct copy *copy, const void *data, size_t len)
{
	int ok;

	pthread_mutex_unlock(&copy->lock);
	ok = EVP_DigestUpdate(copy->digest.sum, data, len);
	pthread_mutex_lock(&copy->lock);
	if (!ok)
		copy_stop(copy, -ENOMEM, "%s: no memory for its checksum", copy->src->name);
	copy->digest.upto += len;
}

/* Adds the next bytes, if they are known. The lock is held. */
static bool digest_add_next(struct copy *copy)
{
	static const uint8_t zeroes[ZEROES];
	struct slot *slot = digest_next_slot(copy);
	uint64_t gap = (slot ? slot->offset : copy->next) - copy->digest.upto;

	if (gap) {
		digest_add(copy, zeroes, min_u64(gap, ZEROES));
		return true;
	}
	if (!slot || slot->digest != DIGEST_READ)
		return false;
	digest_add(copy, slot->buffer, slot->len);
	slot->digest = DIGEST_NONE;
	if (slot->written)
		slot_release(slot);
	return true;
}

static void *digest_run(void *opaque)
{
	struct copy *copy = opaque;

	pthread_mutex_lock(&copy->lock);
	while (!copy->digest.end && !copy->stop) {
		if (!digest_add_next(copy))
			pthread_cond_wait(&copy->digest.changed, &copy->lock);
		else if (digest_is_done(copy))
			copy_wake(copy);
	}
	pthread_mutex_unlock(&copy->lock);
	return NULL;
}

int digest_start(struct copy *copy, const char *name, struct error *err)
{
	struct digest *digest = &copy->digest;
	EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
	int ret = 0;

	digest->sum = EVP_MD_CTX_new();
	if (!md || !digest->sum || !EVP_DigestInit_ex2(digest->sum, md, NULL))
		ret = error_set(err, EINVAL, "OpenSSL gives no checksum %s", name);
	EVP_MD_free(md);
	if (ret == 0)
		ret = -thread_start(&digest->thread, digest_run, copy);
	digest->running = ret == 0;
	return ret == 0 || ret == -EINVAL ? ret :
					    error_set(err, -ret, "no thread for the checksum");
}

void digest_stop(struct copy *copy)
{
	pthread_mutex_lock(&copy->lock);
	copy->digest.end = true;
	digest_wake(copy);
	pthread_mutex_unlock(&copy->lock);
	if (copy->digest.running)
		pthread_join(copy->digest.thread, NULL);
	copy->digest.running = false;
}

void digest_wake(struct copy *copy)
{
	pthread_cond_signal(&copy->digest.changed);
}

bool digest_is_done(const struct copy *copy)
{
	return !copy->digest.sum || copy->digest.upto == copy->next;
}

int digest_text(struct copy *copy, char text[DIGEST_TEXT], struct error *err)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	text[0] = '\0';
	if (!copy->digest.sum)
		return 0;
	if (!EVP_DigestFinal_ex(copy->digest.sum, sum, &len))
		return error_set(err, ENOMEM, "%s: no memory for its checksum", copy->src->name);
	for (unsigned i = 0; i < len; i++)
		snprintf(text + 2 * i, 3, "%02x", sum[i]);
	return 0;
}
