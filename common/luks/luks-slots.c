#include "luks/luks-slots.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "luks/luks-json.h"
#include "memory/secret.h"

#define MAX_SLOTS         32
#define MAX_KEY           512 /* bytes: more than any cipher takes, with integrity */
#define MAX_LANES         256 /* of Argon2; libcryptsetup makes 4 */
#define PBKDF2_PER_MS     1000
#define ARGON2_KIB_PER_MS 1024
#define LONG_MS           10000 /* what takes longer is told before */
#define LUKS1_DIGEST_AT   164   /* of its header: a big-endian 32-bit number of iterations */

struct slot {
	bool used;        /* for this volume: not unbound */
	bool tried;       /* and it didn't open */
	size_t key_len;   /* bytes, of the volume key in it */
	uint64_t ms;      /* that a try takes, by estimate */
	struct error why; /* it can't be tried, or trying it failed; or "" */
	int error;        /* negative errno of that; or 0 */
};

/* One search for a slot that opens. */
struct search {
	struct luks_memfd *memfd;
	const struct luks_pass *pass;
	const char *cipher;       /* that the volume key is for, or NULL */
	struct json_object *json; /* LUKS2, else NULL */
	struct slot slots[MAX_SLOTS];
	int count; /* of slots that this version of LUKS has */
};

/* ---- may it be tried? ---- */

/* libcryptsetup before 2.8.1 opened a slot that isn't encrypted with any passphrase. */
static int check_encryption(const char *encryption, uint64_t key_len, struct error *why)
{
	bool xts = strncmp(encryption, "aes-xts-", 8) == 0;
	bool cbc = strncmp(encryption, "aes-cbc-", 8) == 0;

	if ((!xts && !cbc) || strstr(encryption, "null"))
		return error_set(why, ENOTSUP,
				 "is encrypted with %.48s: only aes-xts and aes-cbc are "
				 "trusted",
				 encryption);
	if (xts ? key_len == 32 || key_len == 64 : key_len == 16 || key_len == 24 || key_len == 32)
		return 0;
	return error_set(why, ENOTSUP,
			 "is encrypted with a key of %" PRIu64 " bytes, which %.48s "
			 "doesn't have",
			 key_len, encryption);
}

static int impossible_kdf(struct error *why)
{
	return error_set(why, EINVAL, "has an impossible key derivation");
}

static uint64_t memory_kib(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (sysconf(_SC_PAGESIZE) / 1024);
}

static int read_argon2(struct json_object *kdf, uint64_t *ms, struct error *why)
{
	uint64_t passes, kib, lanes;

	if (!luks_json_number(luks_json_member(kdf, "time"), UINT32_MAX, &passes) ||
	    !luks_json_number(luks_json_member(kdf, "memory"), UINT32_MAX, &kib) ||
	    !luks_json_number(luks_json_member(kdf, "cpus"), MAX_LANES, &lanes))
		return impossible_kdf(why);
	if (kib > memory_kib())
		return error_set(why, ENOMEM,
				 "takes %" PRIu64 " MiB of memory, and this machine has %" PRIu64,
				 kib / 1024, memory_kib() / 1024);
	*ms = passes * kib / ARGON2_KIB_PER_MS;
	return 0;
}

static int read_pbkdf2(struct json_object *kdf, uint64_t *ms, struct error *why)
{
	uint64_t iterations;

	if (!luks_json_number(luks_json_member(kdf, "iterations"), UINT32_MAX, &iterations))
		return impossible_kdf(why);
	*ms = iterations / PBKDF2_PER_MS;
	return 0;
}

static int read_kdf(struct json_object *kdf, uint64_t *ms, struct error *why)
{
	const char *type = luks_json_text(luks_json_member(kdf, "type"));

	if (strcmp(type, CRYPT_KDF_PBKDF2) == 0)
		return read_pbkdf2(kdf, ms, why);
	if (strcmp(type, CRYPT_KDF_ARGON2I) == 0 || strcmp(type, CRYPT_KDF_ARGON2ID) == 0)
		return read_argon2(kdf, ms, why);
	return error_set(why, ENOTSUP, "has a key derivation that is not supported: %.32s", type);
}

static bool holds_number(struct json_object *names, int number)
{
	char name[12];

	snprintf(name, sizeof(name), "%d", number);
	if (!json_object_is_type(names, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(names); i++)
		if (strcmp(luks_json_text(json_object_array_get_idx(names, i)), name) == 0)
			return true;
	return false;
}

/* Whether the key that came of a slot is the right one takes a derivation, too. */
static int add_digests(struct json_object *json, int number, uint64_t *ms, struct error *why)
{
	struct json_object *digests = luks_json_member(json, "digests");
	uint64_t more = 0;

	if (!json_object_is_type(digests, json_type_object))
		return 0;
	json_object_object_foreach(digests, name, digest)
	{
		(void)name;
		if (!holds_number(luks_json_member(digest, "keyslots"), number))
			continue;
		if (read_pbkdf2(digest, &more, why) < 0)
			return -EINVAL;
		*ms += more;
	}
	return 0;
}

static int check_luks2(struct json_object *json, int number, struct slot *slot)
{
	struct json_object *it = luks_json_numbered(luks_json_member(json, "keyslots"), number);
	struct json_object *area = luks_json_member(it, "area");
	const char *type = luks_json_text(luks_json_member(it, "type"));
	uint64_t area_key_len, key_len;
	int ret;

	if (strcmp(type, "luks2") != 0)
		return error_set(&slot->why, ENOTSUP, "is of type %.32s, which is not supported",
				 type);
	if (!luks_json_number(luks_json_member(it, "key_size"), MAX_KEY, &key_len) ||
	    key_len == 0 ||
	    !luks_json_number(luks_json_member(area, "key_size"), MAX_KEY, &area_key_len))
		return error_set(&slot->why, EINVAL, "holds a key of impossible length");
	slot->key_len = key_len;
	ret = check_encryption(luks_json_text(luks_json_member(area, "encryption")), area_key_len,
			       &slot->why);
	if (ret == 0)
		ret = read_kdf(luks_json_member(it, "kdf"), &slot->ms, &slot->why);
	if (ret == 0)
		ret = add_digests(json, number, &slot->ms, &slot->why);
	return ret;
}

static int check_luks1(struct luks_memfd *memfd, int number, struct slot *slot)
{
	struct crypt_pbkdf_type kdf = { 0 };
	int key_len = crypt_get_volume_key_size(memfd->cd);
	uint32_t digest_iterations = 0;
	char encryption[64];

	if (key_len <= 0 || key_len > MAX_KEY)
		return error_set(&slot->why, EINVAL, "holds a key of impossible length");
	slot->key_len = key_len;
	if (crypt_keyslot_get_pbkdf(memfd->cd, number, &kdf) < 0 ||
	    pread(memfd->fd, &digest_iterations, sizeof(digest_iterations), LUKS1_DIGEST_AT) !=
		    sizeof(digest_iterations))
		return impossible_kdf(&slot->why);
	slot->ms = ((uint64_t)kdf.iterations + be32toh(digest_iterations)) / PBKDF2_PER_MS;
	luks_memfd_cipher(memfd, encryption, sizeof(encryption));
	return check_encryption(encryption, key_len, &slot->why);
}

static void check_slot(struct luks_memfd *memfd, struct json_object *json, int number,
		       struct slot *slot)
{
	crypt_keyslot_info status = crypt_keyslot_status(memfd->cd, number);

	*slot = (struct slot){ .used = status == CRYPT_SLOT_ACTIVE ||
				       status == CRYPT_SLOT_ACTIVE_LAST };
	if (status == CRYPT_SLOT_UNBOUND)
		slot->error = error_set(&slot->why, ENOENT,
					"is unbound: it holds another key than the "
					"volume's");
	else if (!slot->used)
		slot->error = error_set(&slot->why, ENOENT, "is not in use");
	else
		slot->error =
			json ? check_luks2(json, number, slot) : check_luks1(memfd, number, slot);
}

/* ---- a search ---- */

static int search_begin(struct search *search, struct luks_memfd *memfd,
			const struct luks_pass *pass, const char *cipher, struct error *err)
{
	struct error why;
	int ret = 0;

	*search = (struct search){ .memfd = memfd, .pass = pass, .cipher = cipher };
	search->count = crypt_keyslot_max(crypt_get_type(memfd->cd));
	assert(search->count <= MAX_SLOTS);
	if (luks_memfd_version(memfd) == 2)
		ret = luks_json_load(memfd, &search->json, err);
	for (int number = 0; number < search->count && ret == 0; number++) {
		struct slot *slot = &search->slots[number];

		check_slot(memfd, search->json, number, slot);
		if (!slot->error && cipher && pass->fits(cipher, slot->key_len, &why) < 0)
			slot->error = error_set(&slot->why, ENOTSUP,
						"has a key that doesn't fit: %s", why.text);
	}
	return ret;
}

static void search_end(struct search *search)
{
	json_object_put(search->json);
}

static bool is_any_used(const struct search *search)
{
	for (int number = 0; number < search->count; number++)
		if (search->slots[number].used)
			return true;
	return false;
}

static int no_slot_used(const struct search *search, struct error *err)
{
	return error_set(err, EPERM, "%s: the LUKS header has no key slot that is in use",
			 search->memfd->name);
}

static uint64_t max_ms(const struct luks_pass *pass)
{
	return UINT64_C(1000) * (pass->max_kdf_time ? pass->max_kdf_time : LUKS_MAX_KDF_TIME);
}

/* Of what may be tried: what takes too long is left out, the first come first. How long the others
 * take, in ms. */
static uint64_t keep_to_time(struct search *search, const int *order, int count)
{
	uint64_t limit = max_ms(search->pass), total = 0;

	for (int i = 0; i < count; i++) {
		struct slot *slot = &search->slots[order[i]];

		if (slot->error)
			continue;
		if (total + slot->ms > limit)
			slot->error = error_set(
				&slot->why, ETIME,
				"takes about %" PRIu64 " seconds%s, and "
				"the limit is %" PRIu64 " (max-kdf-time)",
				slot->ms / 1000,
				total >= 1000 ? ", after others that take long" : "", limit / 1000);
		else
			total += slot->ms;
	}
	if (total >= LONG_MS && search->pass->notice)
		notice_tell(search->pass->notice,
			    "%s: deriving keys may take %" PRIu64 " seconds and "
			    "more",
			    search->memfd->name, total / 1000);
	return total;
}

/* As libcryptsetup does it: by priority, then by number. */
static int put_in_order(struct search *search, int *order)
{
	static const crypt_keyslot_priority priorities[] = {
		CRYPT_SLOT_PRIORITY_PREFER,
		CRYPT_SLOT_PRIORITY_NORMAL,
		CRYPT_SLOT_PRIORITY_IGNORE,
	};
	uint32_t slots = search->pass->slots;
	int count = 0;

	for (size_t i = 0; i < sizeof(priorities) / sizeof(priorities[0]); i++)
		for (int number = 0; number < search->count; number++) {
			struct slot *slot = &search->slots[number];

			if (!slot->used || (slots && !(slots >> number & 1)) ||
			    crypt_keyslot_get_priority(search->memfd->cd, number) != priorities[i])
				continue;
			if (!slot->error && !slots && priorities[i] == CRYPT_SLOT_PRIORITY_IGNORE)
				slot->error =
					error_set(&slot->why, ENOENT,
						  "has the priority \"ignore\": it is "
						  "only tried when it is chosen by its number");
			order[count++] = number;
		}
	return count;
}

/* ---- trying ---- */

static int try_slot(struct search *search, int number, size_t pass_len, void **key, size_t *key_len)
{
	const struct luks_pass *pass = search->pass;
	struct slot *slot = &search->slots[number];
	struct error why;
	int ret;

	*key_len = slot->key_len;
	*key = secret_alloc(slot->key_len, &why);
	if (!*key)
		return slot->error = error_set(&slot->why, ENOMEM, "failed: %.200s", why.text);
	search->memfd->log[0] = '\0';
	ret = crypt_volume_key_get(search->memfd->cd, number, *key, key_len,
				   pass_len ? pass->data : "", pass_len);
	if (ret >= 0 && *key_len == slot->key_len)
		return number;
	secret_free(*key, slot->key_len);
	*key = NULL;
	if (ret == -EPERM || ret >= 0)
		slot->tried = true;
	else
		slot->error = error_set(&slot->why, -ret, "failed: %.200s",
					luks_memfd_reason(search->memfd, ret));
	return -EPERM;
}

static int try_all(struct search *search, const int *order, int count, size_t pass_len, void **key,
		   size_t *key_len)
{
	int ret = -EPERM;

	for (int i = 0; i < count && ret < 0; i++)
		if (!search->slots[order[i]].error)
			ret = try_slot(search, order[i], pass_len, key, key_len);
	return ret;
}

/* An editor or echo has put a newline behind a passphrase that opens without it. The number of the
 * slot, or a negative errno. */
static int try_without_newline(struct search *search, const int *order, int count)
{
	void *key;
	size_t key_len;
	int ret = try_all(search, order, count, search->pass->len - 1, &key, &key_len);

	if (ret >= 0)
		secret_free(key, key_len);
	return ret;
}

/* ---- why none opened ---- */

/* Adds "slot 1: why" of those for which there is a reason. */
static void add_reasons(const struct search *search, const int *order, int count, char *text,
			size_t size)
{
	size_t len = 0;

	text[0] = '\0';
	for (int i = 0; i < count && len < size; i++)
		if (search->slots[order[i]].error)
			len += snprintf(text + len, size - len, "%sslot %d %s", len ? "; " : "",
					order[i], search->slots[order[i]].why.text);
}

static bool any_tried(const struct search *search, const int *order, int count)
{
	for (int i = 0; i < count; i++)
		if (search->slots[order[i]].tried)
			return true;
	return false;
}

static const char *pass_name(const struct luks_pass *pass)
{
	return pass->name ? pass->name : "this passphrase";
}

static int none_opens(const struct search *search, const int *order, int count, bool newline,
		      struct error *err)
{
	const char *name = search->memfd->name;
	const char *which = search->pass->len ? pass_name(search->pass) : "an empty passphrase";
	const char *either = newline ? ", with or without the newline at its end" : "";
	char reasons[400];

	add_reasons(search, order, count, reasons, sizeof(reasons));
	if (!any_tried(search, order, count))
		return error_set(err, -search->slots[order[0]].error,
				 "%s: no key slot can be opened "
				 "(%s)",
				 name, reasons);
	if (search->pass->slot != LUKS_ANY_SLOT)
		return error_set(err, EPERM, "%s: key slot %d doesn't open with %s%s", name,
				 search->pass->slot, which, either);
	if (!reasons[0])
		return error_set(err, EPERM, "%s: no key slot opens with %s%s", name, which,
				 either);
	return error_set(err, EPERM, "%s: no key slot opens with %s%s (%s)", name, which, either,
			 reasons);
}

static int tell_newline(const struct search *search, int number, struct error *err)
{
	return error_set(
		err, EPERM,
		"%s: no key slot opens with %s, but slot %d does without the "
		"newline at its end: if it is from a file, make that without one (printf %%s, "
		"not echo)",
		search->memfd->name, pass_name(search->pass), number);
}

/* Those passed over though their owner didn't mean it. */
static void tell_passed_over(const struct search *search, const int *order, int count)
{
	for (int i = 0; i < count && search->pass->notice; i++) {
		const struct slot *slot = &search->slots[order[i]];

		if (slot->error && slot->error != -ENOENT)
			notice_tell(search->pass->notice, "%s: key slot %d was passed over: it %s",
				    search->memfd->name, order[i], slot->why.text);
	}
}

/* ---- all of it ---- */

static int search_run(struct search *search, const int *order, int count, void **key,
		      size_t *key_len, struct error *err)
{
	const struct luks_pass *pass = search->pass;
	bool newline = pass->len > 1 && ((const char *)pass->data)[pass->len - 1] == '\n';
	uint64_t ms = keep_to_time(search, order, count);
	int ret;

	ret = try_all(search, order, count, pass->len, key, key_len);
	if (ret >= 0) {
		tell_passed_over(search, order, count);
		return ret;
	}
	/* Once more, if both together keep to the time. */
	newline = newline && any_tried(search, order, count) && 2 * ms <= max_ms(pass);
	ret = newline ? try_without_newline(search, order, count) : -EPERM;
	return ret >= 0 ? tell_newline(search, ret, err) :
			  none_opens(search, order, count, newline, err);
}

static int run_one(struct search *search, void **key, size_t *key_len, struct error *err)
{
	int slot = search->pass->slot;

	if (slot < 0 || slot >= search->count)
		return error_set(err, ENOENT, "%s: there is no key slot %d", search->memfd->name,
				 slot);
	if (search->slots[slot].error)
		return error_set(err, -search->slots[slot].error, "%s: key slot %d %s",
				 search->memfd->name, slot, search->slots[slot].why.text);
	return search_run(search, &slot, 1, key, key_len, err);
}

/* ---- the volume key itself ---- */

/* Whether it is the right one takes a derivation, of which a hostile header says how long. */
static int digest_time(struct luks_memfd *memfd, uint64_t *ms, struct error *err)
{
	struct json_object *json, *digests;
	uint32_t iterations = 0;
	uint64_t more = 0;
	struct error why;
	int ret = 0;

	*ms = 0;
	if (luks_memfd_version(memfd) == 1) {
		if (pread(memfd->fd, &iterations, sizeof(iterations), LUKS1_DIGEST_AT) !=
		    sizeof(iterations))
			return luks_memfd_damaged(memfd, err);
		*ms = be32toh(iterations) / PBKDF2_PER_MS;
		return 0;
	}
	ret = luks_json_load(memfd, &json, err);
	if (ret < 0)
		return ret;
	digests = luks_json_member(json, "digests");
	if (!json_object_is_type(digests, json_type_object)) {
		json_object_put(json);
		return luks_memfd_damaged(memfd, err);
	}
	json_object_object_foreach(digests, name, digest)
	{
		(void)name;
		if (read_pbkdf2(digest, &more, &why) < 0)
			ret = luks_memfd_damaged(memfd, err);
		*ms += more;
	}
	json_object_put(json);
	return ret;
}

static int open_by_volume_key(struct luks_memfd *memfd, const struct luks_pass *pass,
			      const char *cipher, void **key, size_t *key_len, struct error *err)
{
	struct error why;
	uint64_t ms;
	int ret = digest_time(memfd, &ms, err);

	*key = NULL;
	if (ret < 0)
		return ret;
	if (ms > max_ms(pass))
		return error_set(err, ETIME, "%s: to try the volume key takes about %" PRIu64 " s",
				 memfd->name, ms / 1000);
	if (pass->len == 0 || pass->len > MAX_KEY ||
	    crypt_volume_key_verify(memfd->cd, pass->data, pass->len) < 0)
		return error_set(err, EPERM, "%s: this isn't its volume key", memfd->name);
	if (cipher && pass->fits(cipher, pass->len, &why) < 0)
		return error_set(err, ENOTSUP, "%s: %s", memfd->name, why.text);
	*key = secret_alloc(pass->len, err);
	if (!*key)
		return -ENOMEM;
	memcpy(*key, pass->data, pass->len);
	*key_len = pass->len;
	return 0;
}

int luks_slots_open(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		    void **key, size_t *key_len, struct error *err)
{
	struct search search;
	int order[MAX_SLOTS], count, ret;

	if (pass->volume_key)
		return open_by_volume_key(memfd, pass, cipher, key, key_len, err);
	ret = search_begin(&search, memfd, pass, cipher, err);
	*key = NULL;
	if (ret == 0 && pass->slot != LUKS_ANY_SLOT)
		ret = run_one(&search, key, key_len, err);
	else if (ret == 0 && !(count = put_in_order(&search, order)))
		ret = no_slot_used(&search, err);
	else if (ret == 0)
		ret = search_run(&search, order, count, key, key_len, err);
	search_end(&search);
	return ret;
}

int luks_slots_check(struct luks_memfd *memfd, const struct luks_pass *pass, const char *cipher,
		     size_t *key_len, struct error *why)
{
	struct search search;
	int order[MAX_SLOTS] = { 0 };
	int ret = search_begin(&search, memfd, pass, cipher, why);
	int count = ret == 0 ? put_in_order(&search, order) : 0;

	if (ret == 0 && count == 0)
		ret = no_slot_used(&search, why);
	keep_to_time(&search, order, count);
	for (int i = 0; i < count && ret == 0; i++) {
		const struct slot *slot = &search.slots[order[i]];

		if (slot->error)
			ret = error_set(why, -slot->error, "key slot %d %s", order[i],
					slot->why.text);
		else if (slot->key_len != search.slots[order[0]].key_len)
			ret = error_set(why, EINVAL, "its key slots hold keys of several lengths");
	}
	if (ret == 0)
		*key_len = search.slots[order[0]].key_len;
	search_end(&search);
	return ret;
}

int luks_slots_check_cipher(struct luks_memfd *memfd, const struct luks_pass *pass,
			    const char *cipher, struct error *err)
{
	struct search search;
	struct error why = { "" };
	int ret = search_begin(&search, memfd, NULL, NULL, err);
	bool fits = false;

	for (int number = 0; ret == 0 && number < search.count; number++)
		if (search.slots[number].used && search.slots[number].key_len && !fits)
			fits = pass->fits(cipher, search.slots[number].key_len, &why) == 0;
	if (ret == 0 && !is_any_used(&search))
		ret = no_slot_used(&search, err);
	else if (ret == 0 && !fits && why.text[0])
		ret = error_set(err, ENOTSUP, "%s: %s", memfd->name, why.text);
	search_end(&search);
	return ret;
}
