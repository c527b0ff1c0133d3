#include "integrity/trust.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/align.h"

#define VERSION    1
#define HEAD_SPACE (128 * 1024)
#define TEXT_AT    256 /* in a head */
#define LOGS_AT    (2 * HEAD_SPACE)
#define LOG_SPACE  (1024 * 1024)
#define HASHES_AT  (LOGS_AT + 2 * LOG_SPACE)
#define RECORD     64
#define RECORDS    TRUST_LOG
#define RECORD_SUM 56   /* bytes of a record that its sum is over */
#define PAGE       4096 /* of hashes, that are written together */
#define MOST_AREAS (UINT64_C(1) << 40)
#define DIGEST_LEN 32
#define NONE       UINT32_MAX
#define WHOLE      UINT32_MAX /* in place of a leaf: the area */
#define LEAF_SHIFT 40         /* a leaf's number, in a record's area */

static const uint8_t magic[8] = "ndiotrus";

struct head_bytes {
	uint8_t magic[8];
	uint32_t version, text_len;
	uint64_t generation, nonce, size, area_len;
	uint32_t block, tag_size;
	uint64_t seals;
	char uuid[TRUST_UUID];
	uint8_t mac[SEAL_MAC];
	uint8_t digest[DIGEST_LEN];
} __attribute__((packed));

_Static_assert(sizeof(struct head_bytes) == 168 && TEXT_AT + TRUST_TEXT == HEAD_SPACE,
	       "a head has its place");
_Static_assert(RECORDS *RECORD == LOG_SPACE, "a log has its own");

enum record_kind {
	RECORD_INTENDED = 1,
	RECORD_WROTE = 2,
	RECORD_SAW = 3,
	RECORD_LEAF = 4,
};

struct record_bytes {
	uint64_t area, nonce;
	uint32_t number, kind;
	uint8_t hash[TRUST_HASH];
	uint8_t sum[RECORD - RECORD_SUM];
} __attribute__((packed));

_Static_assert(sizeof(struct record_bytes) == RECORD, "records lie in sectors");

/* ---- hashes ---- */

/* Found by its name once and not for each hash, which would take half of a leaf's time. It stays. */
static EVP_MD *sha256(void)
{
	static EVP_MD *_Atomic found;
	EVP_MD *md = atomic_load(&found), *none = NULL;

	if (md)
		return md;
	md = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!md || atomic_compare_exchange_strong(&found, &none, md))
		return md;
	EVP_MD_free(md);
	return none;
}

/* Of two things, one behind the other. What SHA-256 may lack is memory. */
static int hash_two(const void *one, size_t one_len, const void *other, size_t other_len,
		    uint8_t hash[TRUST_HASH])
{
	EVP_MD *md = sha256();
	EVP_MD_CTX *sum = md ? EVP_MD_CTX_new() : NULL;
	bool good = sum && EVP_DigestInit_ex(sum, md, NULL) &&
		    EVP_DigestUpdate(sum, one, one_len) &&
		    EVP_DigestUpdate(sum, other, other_len) && EVP_DigestFinal_ex(sum, hash, NULL);

	EVP_MD_CTX_free(sum);
	return good ? 0 : -ENOMEM;
}

int trust_hash_leaf(const void *tags, size_t len, uint8_t hash[TRUST_HASH])
{
	return hash_two("\0", 1, tags, len, hash);
}

int trust_hash_page(const void *leaves, size_t count, uint8_t hash[TRUST_HASH])
{
	return hash_two("\1", 1, leaves, count * TRUST_HASH, hash);
}

int trust_hash_pages(const void *pages, size_t count, uint8_t hash[TRUST_HASH])
{
	return hash_two("\2", 1, pages, count * TRUST_HASH, hash);
}

size_t trust_pages(size_t leaves)
{
	return (leaves + TRUST_PAGE - 1) / TRUST_PAGE;
}

int trust_hash_each_page(const uint8_t *leaves, size_t count, uint8_t *pages)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < trust_pages(count); i++)
		ret = trust_hash_page(leaves + i * TRUST_PAGE * TRUST_HASH,
				      min_u64(count - i * TRUST_PAGE, TRUST_PAGE),
				      pages + i * TRUST_HASH);
	return ret;
}

static int hash_leaves(const uint8_t *leaves, size_t count, uint8_t hash[TRUST_HASH])
{
	size_t pages = trust_pages(count);
	uint8_t *all = malloc(pages * TRUST_HASH + 1);
	int ret = all ? trust_hash_each_page(leaves, count, all) : -ENOMEM;

	if (ret == 0)
		ret = trust_hash_pages(all, pages, hash);
	free(all);
	return ret;
}

int trust_hash(const void *tags, size_t count, size_t tag_size, uint8_t hash[TRUST_HASH])
{
	size_t len = count * tag_size, leaves = (len + TRUST_LEAF - 1) / TRUST_LEAF;
	uint8_t *all = malloc(leaves * TRUST_HASH + 1);
	int ret = all ? 0 : -ENOMEM;

	for (size_t i = 0; ret == 0 && i < leaves; i++)
		ret = trust_hash_leaf((const uint8_t *)tags + i * TRUST_LEAF,
				      min_u64(len - i * TRUST_LEAF, TRUST_LEAF),
				      all + i * TRUST_HASH);
	if (ret == 0)
		ret = hash_leaves(all, leaves, hash);
	free(all);
	return ret;
}

/* ---- the head ---- */

static uint64_t head_at(uint64_t generation)
{
	return generation % 2 * HEAD_SPACE;
}

static uint64_t log_at(uint64_t generation)
{
	return LOGS_AT + generation % 2 * LOG_SPACE;
}

static int file_error(const struct trust_io *io, const char *what, int ret, struct error *err)
{
	return error_set(err, -ret, "%s: %s: %s", io->name, what, strerror(-ret));
}

static int digest_of(const struct head_bytes *head, const char *text, uint8_t digest[DIGEST_LEN])
{
	return hash_two(head, offsetof(struct head_bytes, digest), text, le32toh(head->text_len),
			digest);
}

/* *bytes is to be freed with free(). */
static int make_head(const struct trust_volume *volume, const char *text, uint64_t generation,
		     uint64_t nonce, uint8_t **bytes, size_t *len)
{
	size_t text_len = strlen(text);
	struct head_bytes head = {
		.version = htole32(VERSION),
		.text_len = htole32(text_len),
		.generation = htole64(generation),
		.nonce = htole64(nonce),
		.size = htole64(volume->size),
		.area_len = htole64(volume->area_len),
		.block = htole32(volume->block),
		.tag_size = htole32(volume->tag_size),
		.seals = htole64(volume->seals),
	};

	memcpy(head.magic, magic, sizeof(magic));
	memcpy(head.uuid, volume->uuid, TRUST_UUID);
	memcpy(head.mac, volume->mac, SEAL_MAC);
	*len = TEXT_AT + text_len;
	*bytes = calloc(1, *len);
	if (!*bytes || digest_of(&head, text, head.digest) < 0)
		return -ENOMEM;
	memcpy(*bytes, &head, sizeof(head));
	memcpy(*bytes + TEXT_AT, text, text_len);
	return 0;
}

/* None, or so many that memory has room for them. */
static bool has_areas(const struct head_bytes *head)
{
	uint64_t size = le64toh(head->size), area_len = le64toh(head->area_len);

	return size == 0 || (area_len > 0 && size / area_len < MOST_AREAS);
}

/* 1: it is valid; 0: it isn't; *text is to be freed. Or a negative errno. */
static int read_head(const struct trust_io *io, unsigned number, struct head_bytes *head,
		     char **text)
{
	uint8_t digest[DIGEST_LEN];
	uint32_t len;
	int ret = io->read(io->file, number * HEAD_SPACE, head, sizeof(*head));

	*text = NULL;
	if (ret < 0)
		return ret;
	len = le32toh(head->text_len);
	if (memcmp(head->magic, magic, sizeof(magic)) != 0 || len > TRUST_TEXT)
		return 0;
	if (le32toh(head->version) != VERSION)
		return -ENOTSUP;
	*text = calloc(1, len + 1);
	if (!*text)
		return -ENOMEM;
	ret = io->read(io->file, number * HEAD_SPACE + TEXT_AT, *text, len);
	if (ret == 0)
		ret = digest_of(head, *text, digest);
	if (ret == 0)
		ret = memcmp(digest, head->digest, DIGEST_LEN) == 0 && strlen(*text) == len &&
		      le64toh(head->generation) % 2 == number && !head->uuid[TRUST_UUID - 1] &&
		      has_areas(head);
	return ret;
}

static void accept_head(struct trust *trust, const struct head_bytes *head, char *text)
{
	free(trust->text);
	trust->text = text;
	trust->generation = le64toh(head->generation);
	trust->nonce = le64toh(head->nonce);
	trust->volume = (struct trust_volume){
		.size = le64toh(head->size),
		.area_len = le64toh(head->area_len),
		.block = le32toh(head->block),
		.tag_size = le32toh(head->tag_size),
		.seals = le64toh(head->seals),
	};
	memcpy(trust->volume.uuid, head->uuid, TRUST_UUID);
	memcpy(trust->volume.mac, head->mac, SEAL_MAC);
}

/* One that can't be read may be the newer. */
static int find_head(struct trust *trust, struct error *err)
{
	struct head_bytes head;
	int ret = 0;
	char *text;

	for (unsigned i = 0; i < 2 && ret >= 0; i++) {
		ret = read_head(&trust->io, i, &head, &text);
		if (ret == 1 && (!trust->text || le64toh(head.generation) > trust->generation))
			accept_head(trust, &head, text);
		else
			free(text);
	}
	if (ret == -ENOTSUP)
		return error_set(err, ENOTSUP, "%s: made by a later version of ndio",
				 trust->io.name);
	if (ret < 0)
		return file_error(&trust->io, "reading", ret, err);
	if (trust->text)
		return 0;
	return error_set(err, EINVAL, "%s: this is no file that ndio trust made, or it is damaged",
			 trust->io.name);
}

/* ---- what counts ---- */

static uint8_t *hash_place(const struct trust *trust, uint64_t area)
{
	assert(area < trust_areas(&trust->volume));
	return trust->hashes + area * TRUST_HASH;
}

static bool same_hash(const uint8_t *one, const uint8_t *other)
{
	return memcmp(one, other, TRUST_HASH) == 0;
}

/* A free one, or none. */
static uint32_t new_pending(struct trust *trust)
{
	uint32_t room = trust->pending_room ? 2 * trust->pending_room : 64;
	struct trust_pending *more;

	if (trust->pending_free == NONE && room <= 4 * RECORDS) {
		more = realloc(trust->pending, room * sizeof(*more));
		if (!more)
			return NONE;
		trust->pending = more;
		for (; trust->pending_room < room; trust->pending_room++) {
			more[trust->pending_room].next = trust->pending_free;
			trust->pending_free = trust->pending_room;
		}
	}
	return trust->pending_free;
}

/* Behind what was intended before. */
static int add_pending(struct trust *trust, uint64_t area, uint32_t leaf, const uint8_t *hash)
{
	uint32_t *link, new = new_pending(trust);

	if (new == NONE)
		return -ENOMEM;
	trust->pending_free = trust->pending[new].next;
	trust->pending[new].next = NONE;
	trust->pending[new].leaf = leaf;
	memcpy(trust->pending[new].hash, hash, TRUST_HASH);
	for (link = &trust->first[area]; *link != NONE; link = &trust->pending[*link].next)
		continue;
	*link = new;
	trust->pending_count++;
	return 0;
}

/* The first of the area's, or of its leaf's, that is this one, or any; or NONE. */
static uint32_t find_pending(const struct trust *trust, uint64_t area, uint32_t leaf,
			     const uint8_t *hash)
{
	uint32_t i = trust->first[area];

	while (i != NONE && (trust->pending[i].leaf != leaf ||
			     (hash && !same_hash(trust->pending[i].hash, hash))))
		i = trust->pending[i].next;
	return i;
}

/* The last of the area's that is this one, or NONE: an area may become one thing twice, and what was intended in
 * between isn't to be taken any more. */
static uint32_t last_pending(const struct trust *trust, uint64_t area, const uint8_t *hash)
{
	uint32_t last = NONE;

	for (uint32_t i = trust->first[area]; i != NONE; i = trust->pending[i].next)
		if (trust->pending[i].leaf == WHOLE && same_hash(trust->pending[i].hash, hash))
			last = i;
	return last;
}

/* Of the area's, all up to the last one to go; NONE: all. */
static void drop_pending(struct trust *trust, uint64_t area, uint32_t last)
{
	uint32_t gone = trust->first[area], next;

	for (bool more = true; more && gone != NONE; gone = next) {
		next = trust->pending[gone].next;
		more = gone != last;
		trust->pending[gone].next = trust->pending_free;
		trust->pending_free = gone;
		trust->pending_count--;
	}
	trust->first[area] = gone;
}

/* From a log too, which may say anything. False: it can't be so. */
static bool is_sound(const struct trust *trust, enum record_kind kind, uint64_t area, uint32_t leaf,
		     const uint8_t *hash)
{
	if (area >= trust_areas(&trust->volume) || (leaf != WHOLE) != (kind == RECORD_LEAF))
		return false;
	if (kind == RECORD_WROTE)
		return find_pending(trust, area, WHOLE, hash) != NONE;
	return kind == RECORD_INTENDED || kind == RECORD_SAW || kind == RECORD_LEAF;
}

static int apply(struct trust *trust, enum record_kind kind, uint64_t area, uint32_t leaf,
		 const uint8_t *hash)
{
	if (kind == RECORD_INTENDED || kind == RECORD_LEAF)
		return add_pending(trust, area, leaf, hash);
	drop_pending(trust, area, kind == RECORD_WROTE ? last_pending(trust, area, hash) : NONE);
	memcpy(hash_place(trust, area), hash, TRUST_HASH);
	trust->dirty[area * TRUST_HASH / PAGE] = 1;
	return 0;
}

uint64_t trust_known(const struct trust *trust)
{
	uint64_t known = 0;

	for (uint64_t area = 0; area < trust_areas(&trust->volume); area++)
		known +=
			trust->first[area] != NONE || !is_zero(hash_place(trust, area), TRUST_HASH);
	return known;
}

enum trust_verdict trust_check(const struct trust *trust, uint64_t area,
			       const uint8_t hash[TRUST_HASH])
{
	const uint8_t *known = hash_place(trust, area);

	if (same_hash(known, hash) || find_pending(trust, area, WHOLE, hash) != NONE)
		return TRUST_SAME;
	return is_zero(known, TRUST_HASH) ? TRUST_UNKNOWN : TRUST_OTHER;
}

/* Every leaf that is in doubt must be what it was, which is put in its place, or what it was to become.
 * was is a byte a leaf, of zeroes. */
static bool restore_leaves(const struct trust *trust, uint64_t area, const uint8_t *leaves,
			   size_t count, uint8_t *before, uint8_t *was)
{
	const struct trust_pending *pending;

	for (uint32_t i = trust->first[area]; i != NONE; i = pending->next) {
		pending = &trust->pending[i];
		if (pending->leaf == WHOLE)
			continue;
		if (pending->leaf >= count)
			return false;
		if (!was[pending->leaf])
			memcpy(before + pending->leaf * TRUST_HASH, pending->hash, TRUST_HASH);
		if (was[pending->leaf] != 2)
			was[pending->leaf] =
				1 + same_hash(leaves + pending->leaf * TRUST_HASH, pending->hash);
	}
	return !memchr(was, 1, count);
}

int trust_check_leaves(const struct trust *trust, uint64_t area, const uint8_t *leaves,
		       size_t count)
{
	uint8_t hash[TRUST_HASH], *before;
	int ret = hash_leaves(leaves, count, hash);

	if (ret == 0)
		ret = trust_check(trust, area, hash);
	if (ret != TRUST_OTHER || !trust_is_in_doubt(trust, area))
		return ret;
	before = malloc(count * (TRUST_HASH + 1));
	if (!before)
		return -ENOMEM;
	memcpy(before, leaves, count * TRUST_HASH);
	memset(before + count * TRUST_HASH, 0, count);
	if (restore_leaves(trust, area, leaves, count, before, before + count * TRUST_HASH)) {
		ret = hash_leaves(before, count, hash);
		if (ret == 0)
			ret = trust_check(trust, area, hash);
	}
	free(before);
	return ret;
}

bool trust_is_in_doubt(const struct trust *trust, uint64_t area)
{
	return trust->first[area] != NONE;
}

/* ---- the log ---- */

static int sum_record(struct record_bytes *record)
{
	uint8_t hash[TRUST_HASH];
	int ret = hash_two(record, RECORD_SUM, "", 0, hash);

	memcpy(record->sum, hash, sizeof(record->sum));
	return ret;
}

static int put_record(uint8_t *log, size_t number, uint64_t nonce, enum record_kind kind,
		      uint64_t area, uint32_t leaf, const uint8_t *hash)
{
	uint64_t of = leaf == WHOLE ? 0 : (uint64_t)leaf << LEAF_SHIFT;
	struct record_bytes record = {
		.area = htole64(area | of),
		.nonce = htole64(nonce),
		.number = htole32(number),
		.kind = htole32(kind),
	};
	int ret;

	memcpy(record.hash, hash, TRUST_HASH);
	ret = sum_record(&record);
	memcpy(log + number * RECORD, &record, RECORD);
	return ret;
}

/* 1; 0: it isn't valid; or a negative errno: that isn't known. */
static int get_record(const struct trust *trust, size_t number, struct record_bytes *record)
{
	uint8_t sum[sizeof(record->sum)];
	int ret;

	memcpy(record, trust->log + number * RECORD, RECORD);
	memcpy(sum, record->sum, sizeof(sum));
	ret = sum_record(record);
	if (ret < 0)
		return ret;
	return memcmp(sum, record->sum, sizeof(sum)) == 0 &&
	       le64toh(record->nonce) == trust->nonce && le32toh(record->number) == number;
}

/* 1; 0: it says something impossible; or a negative errno. */
static int read_record(struct trust *trust, const struct record_bytes *record)
{
	enum record_kind kind = le32toh(record->kind);
	uint64_t area = le64toh(record->area);
	uint32_t leaf = WHOLE;
	int ret;

	if (kind == RECORD_LEAF) {
		leaf = area >> LEAF_SHIFT;
		area &= (UINT64_C(1) << LEAF_SHIFT) - 1;
	}
	if (!is_sound(trust, kind, area, leaf, record->hash))
		return 0;
	ret = apply(trust, kind, area, leaf, record->hash);
	return ret < 0 ? ret : 1;
}

/* What a log says. The next record begins another one: behind the end of this there may be some of what
 * was cut off. */
static int read_log(struct trust *trust)
{
	struct record_bytes record;
	int ret = 1;

	for (size_t i = 0; ret == 1 && i < RECORDS; i++) {
		if (i * RECORD % PAGE == 0)
			ret = trust->io.read(trust->io.file, log_at(trust->generation) + i * RECORD,
					     trust->log + i * RECORD, PAGE);
		if (ret >= 0)
			ret = get_record(trust, i, &record);
		if (ret == 1)
			ret = read_record(trust, &record);
	}
	trust->log_count = trust->log_written = RECORDS;
	return ret < 0 ? ret : 0;
}

/* ---- made, opened ---- */

static int new_nonce(uint64_t *nonce)
{
	return RAND_bytes((uint8_t *)nonce, sizeof(*nonce)) == 1 ? 0 : -EIO;
}

int trust_make(const struct trust_io *io, const struct trust_volume *volume, const char *text,
	       struct error *err)
{
	uint8_t *head = NULL;
	uint64_t nonce;
	size_t len = 0;
	int ret = new_nonce(&nonce);

	if (strlen(text) > TRUST_TEXT)
		return error_set(err, EFBIG, "%s: the header has too many key slots and tokens",
				 io->name);
	if (ret == 0)
		ret = make_head(volume, text, 1, nonce, &head, &len);
	if (ret == 0)
		ret = io->write(io->file, head_at(1), head, len);
	free(head);
	if (ret == 0)
		ret = io->sync(io->file);
	return ret < 0 ? file_error(io, "writing", ret, err) : 0;
}

static uint64_t hashes_len(const struct trust *trust)
{
	return round_up(trust_areas(&trust->volume) * TRUST_HASH, PAGE);
}

int trust_open(struct trust *trust, const struct trust_io *io, struct error *err)
{
	int ret;

	*trust = (struct trust){ .io = *io };
	ret = find_head(trust, err);
	if (ret < 0) {
		trust_destroy(trust);
		return ret;
	}
	trust->hashes = calloc(1, hashes_len(trust) + 1);
	trust->dirty = calloc(1, hashes_len(trust) / PAGE + 1);
	trust->log = calloc(1, LOG_SPACE);
	trust->next_log = calloc(1, LOG_SPACE);
	trust->first = malloc((trust_areas(&trust->volume) + 1) * sizeof(*trust->first));
	trust->pending_free = NONE;
	ret = trust->hashes && trust->dirty && trust->log && trust->next_log && trust->first ?
		      0 :
		      -ENOMEM;
	for (uint64_t i = 0; ret == 0 && i < trust_areas(&trust->volume); i++)
		trust->first[i] = NONE;
	if (ret == 0)
		ret = io->read(io->file, HASHES_AT, trust->hashes,
			       trust_areas(&trust->volume) * TRUST_HASH);
	if (ret == 0)
		ret = read_log(trust);
	if (ret == 0)
		return 0;
	trust_destroy(trust);
	return file_error(io, "reading", ret, err);
}

void trust_destroy(struct trust *trust)
{
	free(trust->text);
	free(trust->hashes);
	free(trust->dirty);
	free(trust->log);
	free(trust->next_log);
	free(trust->first);
	free(trust->pending);
	*trust = (struct trust){ 0 };
}

/* ---- the volume, and its header ---- */

uint64_t trust_areas(const struct trust_volume *volume)
{
	return volume->size ? (volume->size - 1) / volume->area_len + 1 : 0;
}

int trust_check_volume(const struct trust *trust, const struct trust_volume *volume,
		       struct error *err)
{
	const struct trust_volume *is = &trust->volume;

	if (strncmp(is->uuid, volume->uuid, TRUST_UUID) != 0)
		return error_set(err, ESTALE, "%s: of another volume, with the UUID %s",
				 trust->io.name, is->uuid);
	if (is->size != volume->size || is->area_len != volume->area_len ||
	    is->block != volume->block || is->tag_size != volume->tag_size)
		return error_set(err, ESTALE,
				 "%s: the volume has another size or other tags than it had",
				 trust->io.name);
	return 0;
}

int trust_check_header(const struct trust *trust, const char *text, struct error *err)
{
	size_t first = strcspn(trust->text, "\n");
	char words[256], *sealed;

	if (strlen(text) == first && memcmp(trust->text, text, first) == 0)
		return 0;
	if (trust->text[first] && strcmp(trust->text + first + 1, text) == 0)
		return 0;
	sealed = strndup(trust->text, first);
	seal_differences(sealed ? sealed : "", text, words, sizeof(words));
	free(sealed);
	return error_set(err, ESTALE, "%s: the header isn't the one that was sealed: %s",
			 trust->io.name, words);
}

int trust_check_key(const struct trust *trust, const void *volume_key, size_t key_len,
		    struct error *err)
{
	uint8_t mac[SEAL_MAC];
	int ret = seal_mac(volume_key, key_len, trust->volume.uuid, trust->volume.seals,
			   trust->text, mac);

	if (ret < 0)
		return file_error(&trust->io, "the header's MAC", ret, err);
	if (!seal_same(mac, trust->volume.mac))
		return error_set(err, ESTALE,
				 "%s: the header opens with another volume key than the one that "
				 "sealed it",
				 trust->io.name);
	return 0;
}

/* ---- generations ---- */

/* What goes wrong once with the file counts from then on: what is in it isn't known any more. */
static int remember_error(struct trust *trust, int ret)
{
	if (ret < 0 && !trust->error)
		trust->error = ret;
	return ret;
}

static int write_or_fail(struct trust *trust, uint64_t at, const void *bytes, size_t len)
{
	return remember_error(trust, trust->io.write(trust->io.file, at, bytes, len));
}

static int sync_or_fail(struct trust *trust)
{
	return remember_error(trust, trust->io.sync(trust->io.file));
}

static int write_hashes(struct trust *trust)
{
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < hashes_len(trust) / PAGE; i++)
		if (trust->dirty[i])
			ret = write_or_fail(trust, HASHES_AT + i * PAGE, trust->hashes + i * PAGE,
					    PAGE);
	return ret;
}

static int put_pending(struct trust *trust, uint64_t nonce)
{
	size_t count = 0;
	int ret = 0;

	for (uint64_t area = 0; area < trust_areas(&trust->volume); area++)
		for (uint32_t i = trust->first[area]; ret == 0 && i != NONE;
		     i = trust->pending[i].next)
			ret = put_record(trust->next_log, count++, nonce,
					 trust->pending[i].leaf == WHOLE ? RECORD_INTENDED :
									   RECORD_LEAF,
					 area, trust->pending[i].leaf, trust->pending[i].hash);
	return ret;
}

/* All that counts is safe in the file, before a head says that it does. */
static int begin_log(struct trust *trust, uint64_t nonce)
{
	int ret = trust->pending_count < RECORDS ? put_pending(trust, nonce) : -ENOBUFS;

	if (ret == 0 && trust->pending_count > 0)
		ret = write_or_fail(trust, log_at(trust->generation + 1), trust->next_log,
				    trust->pending_count * RECORD);
	if (ret == 0)
		ret = write_hashes(trust);
	return ret == 0 ? sync_or_fail(trust) : ret;
}

/* Without memory this one goes on: what was written by then isn't of it. */
static int next_generation(struct trust *trust, const struct trust_volume *volume, const char *text)
{
	uint8_t *log = trust->next_log, *head = NULL;
	size_t len = 0;
	uint64_t nonce;
	int ret = new_nonce(&nonce);

	if (ret == 0)
		ret = make_head(volume, text, trust->generation + 1, nonce, &head, &len);
	if (ret == 0)
		ret = begin_log(trust, nonce);
	if (ret == 0)
		ret = write_or_fail(trust, head_at(trust->generation + 1), head, len);
	free(head);
	if (ret == 0)
		ret = sync_or_fail(trust);
	if (ret < 0)
		return ret;
	trust->next_log = trust->log;
	trust->log = log;
	memset(trust->dirty, 0, hashes_len(trust) / PAGE);
	trust->generation++;
	trust->nonce = nonce;
	trust->changed = false;
	trust->log_count = trust->log_written = trust->pending_count;
	return 0;
}

static int told(const struct trust *trust, int ret, struct error *err)
{
	if (trust->error)
		ret = trust->error;
	return ret < 0 ? file_error(&trust->io, "writing", ret, err) : 0;
}

int trust_checkpoint(struct trust *trust, struct error *err)
{
	return told(trust, trust->error ? 0 : next_generation(trust, &trust->volume, trust->text),
		    err);
}

/* volume has the count of seals, and gets the MAC. */
static int seal_as(struct trust *trust, struct trust_volume volume, char *text,
		   const void *volume_key, size_t key_len, struct error *err)
{
	int ret = text ? 0 : -ENOMEM;

	if (ret == 0 && strlen(text) > TRUST_TEXT) {
		free(text);
		return error_set(err, EFBIG, "%s: the header has too many key slots and tokens",
				 trust->io.name);
	}
	if (ret == 0)
		ret = seal_mac(volume_key, key_len, volume.uuid, volume.seals, text, volume.mac);
	if (ret == 0)
		ret = trust->error ? trust->error : next_generation(trust, &volume, text);
	if (ret < 0) {
		free(text);
		return told(trust, ret, err);
	}
	free(trust->text);
	trust->text = text;
	trust->volume = volume;
	return 0;
}

int trust_seal(struct trust *trust, const char *text, const void *volume_key, size_t key_len,
	       struct error *err)
{
	struct trust_volume volume = trust->volume;

	volume.seals++;
	return seal_as(trust, volume, strdup(text), volume_key, key_len, err);
}

int trust_intend_header(struct trust *trust, const char *text, const void *volume_key,
			size_t key_len, struct error *err)
{
	int first = strcspn(trust->text, "\n");
	char *both;

	if (asprintf(&both, "%.*s\n%s", first, trust->text, text) < 0)
		both = NULL;
	return seal_as(trust, trust->volume, both, volume_key, key_len, err);
}

int trust_settle_header(struct trust *trust, const char *text, const void *volume_key,
			size_t key_len, struct error *err)
{
	if (!strchr(trust->text, '\n'))
		return 0;
	return seal_as(trust, trust->volume, strdup(text), volume_key, key_len, err);
}

/* ---- areas ---- */

int trust_make_room(struct trust *trust, size_t count, struct error *err)
{
	if (trust->error || trust->log_count + count <= RECORDS)
		return told(trust, 0, err);
	return trust_checkpoint(trust, err);
}

static int record(struct trust *trust, enum record_kind kind, uint64_t area, uint32_t leaf,
		  const uint8_t *hash, struct error *err)
{
	bool adds = kind == RECORD_INTENDED || kind == RECORD_LEAF;
	int ret = trust->error;

	/* One is left to settle something, or nothing ever could be. */
	if (ret == 0 && adds && trust->pending_count >= RECORDS - 1)
		ret = -ENOBUFS;
	if (ret == 0 && trust->log_count == RECORDS)
		ret = next_generation(trust, &trust->volume, trust->text);
	assert(ret < 0 || is_sound(trust, kind, area, leaf, hash));
	if (ret == 0)
		ret = put_record(trust->log, trust->log_count, trust->nonce, kind, area, leaf,
				 hash);
	/* Not before: what counts and isn't in the log would be lost. */
	if (ret == 0)
		ret = apply(trust, kind, area, leaf, hash);
	trust->changed = true;
	if (ret == 0)
		trust->log_count++;
	return told(trust, ret, err);
}

int trust_intend(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH],
		 struct error *err)
{
	return record(trust, RECORD_INTENDED, area, WHOLE, hash, err);
}

int trust_intend_leaf(struct trust *trust, uint64_t area, uint32_t leaf,
		      const uint8_t is[TRUST_HASH], const uint8_t becomes[TRUST_HASH],
		      struct error *err)
{
	int ret = 0;

	if (find_pending(trust, area, leaf, NULL) == NONE)
		ret = record(trust, RECORD_LEAF, area, leaf, is, err);
	if (ret == 0 && find_pending(trust, area, leaf, becomes) == NONE)
		ret = record(trust, RECORD_LEAF, area, leaf, becomes, err);
	return ret < 0 ? ret : told(trust, 0, err);
}

int trust_wrote(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH],
		struct error *err)
{
	return record(trust, RECORD_WROTE, area, WHOLE, hash, err);
}

int trust_saw(struct trust *trust, uint64_t area, const uint8_t hash[TRUST_HASH], struct error *err)
{
	return record(trust, RECORD_SAW, area, WHOLE, hash, err);
}

int trust_sync(struct trust *trust, struct error *err)
{
	size_t new = trust->log_count - trust->log_written;
	int ret = 0;

	if (new == 0 || trust->error)
		return told(trust, 0, err);
	ret = write_or_fail(trust, log_at(trust->generation) + trust->log_written * RECORD,
			    trust->log + trust->log_written * RECORD, new *RECORD);
	if (ret == 0)
		ret = sync_or_fail(trust);
	if (ret == 0)
		trust->log_written = trust->log_count;
	return told(trust, ret, err);
}
