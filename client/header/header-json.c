#include "header/header-json.h"

#include <endian.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the binary header of a copy, in bytes. */
#define BINARY_LEN    4096 /* the JSON comes behind it */
#define SEQID_AT      16
#define SUM_NAME_AT   72
#define SUM_NAME_LEN  32
#define CHECKSUM_AT   448
#define CHECKSUM_ROOM 64

static int put_checksum(uint8_t *copy, uint64_t len)
{
	char name[SUM_NAME_LEN + 1] = "";
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned sum_len = 0;
	EVP_MD *md;
	int ok;

	memcpy(name, copy + SUM_NAME_AT, SUM_NAME_LEN);
	md = EVP_MD_fetch(NULL, name, NULL);
	memset(copy + CHECKSUM_AT, 0, CHECKSUM_ROOM);
	ok = md && EVP_MD_get_size(md) <= CHECKSUM_ROOM &&
	     EVP_Digest(copy, len, sum, &sum_len, md, NULL);
	EVP_MD_free(md);
	if (!ok)
		return -ENOTSUP;
	memcpy(copy + CHECKSUM_AT, sum, sum_len);
	return 0;
}

/* One of the two: what it has besides the JSON stays. */
static int change_copy(uint8_t *copy, uint64_t len, const char *text)
{
	size_t text_len = strlen(text);
	uint64_t seqid;

	if (text_len >= len - BINARY_LEN)
		return -ENOSPC;
	memcpy(&seqid, copy + SEQID_AT, sizeof(seqid));
	seqid = htobe64(be64toh(seqid) + 1);
	memcpy(copy + SEQID_AT, &seqid, sizeof(seqid));
	memset(copy + BINARY_LEN, 0, len - BINARY_LEN);
	memcpy(copy + BINARY_LEN, text, text_len);
	return put_checksum(copy, len);
}

static int load_bytes(struct header *header, const void *bytes, uint64_t len, struct error *err)
{
	int ret;

	luks_memfd_close(&header->memfd);
	luks_memfd_init(&header->memfd, header->name);
	ret = luks_memfd_make(&header->memfd, header->size, err);
	if (ret == 0)
		ret = luks_memfd_write(&header->memfd, bytes, len, 0, err);
	if (ret == 0)
		ret = luks_memfd_load(&header->memfd, err);
	return ret < 0 ? ret : header_measure(header, err);
}

int header_set_json(struct header *header, struct json_object *json, struct error *err)
{
	const char *text = json_object_to_json_string_ext(
		json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	uint64_t len = header->len, copy_len = header->copy_len;
	uint8_t *bytes = malloc(len);
	int ret = 0;

	if (!bytes || !text)
		ret = -ENOMEM;
	else if (pread(header->memfd.fd, bytes, len, 0) != (ssize_t)len)
		ret = -EIO;
	for (unsigned i = 0; i < 2 && ret == 0; i++)
		ret = change_copy(bytes + i * copy_len, copy_len, text);
	if (ret < 0)
		error_set(err, -ret, "%s: changing its LUKS metadata: %s", header->name,
			  strerror(-ret));
	else
		ret = load_bytes(header, bytes, len, err);
	free(bytes);
	return ret;
}
