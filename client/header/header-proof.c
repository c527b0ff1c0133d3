#include "header/header-proof.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "integrity/tagged-cipher.h"
#include "luks/luks.h"
#include "memory/secret.h"

static int proof_read_volume(void *opaque, void *buf, size_t len, uint64_t offset)
{
	return header_read_bytes(opaque, buf, len, offset, "reading it", NULL);
}

static int read_memfd(void *opaque, void *buf, size_t len, uint64_t offset)
{
	struct header *header = opaque;
	ssize_t n = pread(header->memfd.fd, buf, len, offset);

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

/* A header of its own in which the key slot is opened, and nothing else. */
static int load_copy(struct luks_memfd *memfd, const struct header *header,
		     const struct luks_source *source, struct error *err)
{
	uint8_t *bytes = malloc(header->len);
	int ret = bytes ? source->read(source->opaque, bytes, header->len, 0) : -ENOMEM;

	if (ret < 0)
		error_set(err, -ret, "%s: reading it: %s", header->name, error_reason(-ret));
	if (ret == 0)
		ret = luks_memfd_make(memfd, source->size, err);
	if (ret == 0)
		ret = luks_memfd_write(memfd, bytes, header->len, 0, err);
	free(bytes);
	return ret < 0 ? ret : luks_memfd_load(memfd, err);
}

/* Of a volume whose data only cryptsetup can decrypt: its keys can be edited here all the same. */
static int open_slot(const struct header *header, const struct luks_source *source,
		     const struct luks_pass *pass, struct error *err)
{
	struct luks_memfd memfd;
	size_t len;
	void *key;
	int ret;

	luks_memfd_init(&memfd, header->name);
	ret = load_copy(&memfd, header, source, err);
	if (ret == 0)
		ret = pass->tokens ? luks_tokens_open(&memfd, pass, NULL, &key, &len, err) :
				     luks_slots_open(&memfd, pass, NULL, &key, &len, err);
	if (ret >= 0)
		secret_free(key, len);
	luks_memfd_close(&memfd);
	return ret;
}

static int prove(const struct header *header, const struct luks_source *source,
		 const struct header_proof *proof, struct error *err)
{
	const struct luks_pass pass = {
		.data = proof->key ? proof->key->data : NULL,
		.len = proof->key ? proof->key->len : 0,
		.tokens = proof->key ? NULL : proof->tokens,
		.name = "this key",
		.slot = proof->slot,
		.fits = tagged_supported,
		.max_kdf_time = UINT_MAX, /* how long it takes was for who chose it to say */
	};
	struct error why;
	struct luks luks;
	int ret = luks_unlock(source, &pass, &luks, &why);

	luks_clear(&luks);
	if (ret == -ENOTSUP)
		ret = open_slot(header, source, &pass, &why);
	if (ret < 0)
		return error_set(err, -ret, "the new key doesn't open the new header: %s",
				 why.text);
	return 0;
}

int header_prove(struct header *header, const struct header_proof *proof, struct error *err)
{
	const struct luks_source source = {
		.name = header->name,
		.size = header->size,
		.read = proof_read_volume,
		.opaque = header,
		.detached = true, /* or not: where the data are isn't the question */
	};

	return prove(header, &source, proof, err);
}

int header_prove_memfd(struct header *header, const struct header_proof *proof, struct error *err)
{
	const struct luks_source source = {
		.name = header->name,
		.size = header->memfd.len,
		.read = read_memfd,
		.opaque = header,
		.detached = true, /* or not: where the data are isn't the question */
	};

	return prove(header, &source, proof, err);
}
