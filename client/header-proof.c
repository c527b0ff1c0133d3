#include "header-proof.h"

#include <errno.h>
#include <unistd.h>

#include "luks.h"

static int read_volume(void *opaque, void *buf, size_t len, uint64_t offset)
{
	return header_read_bytes(opaque, buf, len, offset, "reading it", NULL);
}

static int read_memfd(void *opaque, void *buf, size_t len, uint64_t offset)
{
	struct header *header = opaque;
	ssize_t n = pread(header->memfd.fd, buf, len, offset);

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

static int prove(const struct luks_source *source, const struct header_proof *proof,
		 struct error *err)
{
	struct error why;
	struct luks luks;
	int ret = luks_unlock(source, proof->key->data, proof->key->len, &luks, &why);

	if (ret < 0)
		return error_set(err, -ret, "the new key doesn't open the new header: %s", why.text);
	luks_clear(&luks);
	return 0;
}

int header_prove(struct header *header, const struct header_proof *proof, struct error *err)
{
	const struct luks_source source = {
		.name = header->name,
		.size = header->size,
		.read = read_volume,
		.opaque = header,
	};

	return prove(&source, proof, err);
}

static struct luks_source memfd_source(struct header *header)
{
	return (struct luks_source){
		.name = header->name,
		.size = header->memfd.size,
		.read = read_memfd,
		.opaque = header,
	};
}

int header_prove_memfd(struct header *header, const struct header_proof *proof,
		       struct error *err)
{
	const struct luks_source source = memfd_source(header);

	return prove(&source, proof, err);
}

int header_try_key(struct header *header, const struct key *key, struct error *err)
{
	const struct luks_source source = memfd_source(header);
	struct luks luks;
	int ret = luks_unlock(&source, key->data, key->len, &luks, err);

	luks_clear(&luks);
	return ret;
}
