/* A sealed header, with a trust file and without: whoever stores it changes each member of its JSON, and
 * bytes of both copies, with checksums that are right. It is refused, or opens the same volume in the
 * same way. NDIO_EACH=1: each byte, and not some. */
#include <endian.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/cipher.h"
#include "integrity/trusted.h"
#include "luks/luks-json.h"
#include "luks/luks.h"
#include "volumes.h"

#define BINARY  4096 /* bytes of a copy before its JSON */
#define SUM_AT  448
#define SUM_LEN 64
#define FIELDS  512 /* bytes of a binary header that say something */
#define SMALL   "--type luks2 --luks2-keyslots-size 1M --offset 4096 --sector-size 4096"
#define UUID    "0f3c8a4e-3b1d-4c75-9d3a-0b8b6a1f5d11"

static uint8_t *good;
static size_t len, copy_len;
static struct luks truth;
static char path[4096];
static struct error err;

static int read_image(void *image, void *buf, size_t n, uint64_t offset)
{
	memcpy(buf, (const uint8_t *)image + offset, n);
	return 0;
}

static int guard_header(void *trusted, struct luks_memfd *memfd, struct error *why)
{
	return trusted_check_header(trusted, memfd, why);
}

static int guard_key(void *trusted, const void *key, size_t key_len, struct error *why)
{
	return trusted_check_key(trusted, key, key_len, why);
}

/* As volume_open() does it. */
static int unlock_guarded(const uint8_t *image, const char *pass, const char *file,
			  struct luks *luks)
{
	const struct luks_source source = {
		.name = "disk", .size = len, .read = read_image, .opaque = (void *)image
	};
	struct trusted trusted;
	const struct luks_guard guard = { guard_header, guard_key, &trusted };
	const struct luks_pass how = { .data = pass,
				       .len = strlen(pass),
				       .slot = LUKS_ANY_SLOT,
				       .fits = cipher_supported,
				       .guard = &guard };
	struct error ignored;
	int ret = trusted_open(&trusted, file, true, &err);

	memset(luks, 0, sizeof(*luks));
	if (ret == 0)
		ret = luks_unlock(&source, &how, luks, &err);
	trusted_close(&trusted, &ignored);
	return ret;
}

static bool opens_the_same(const struct luks *luks)
{
	return strcmp(luks->cipher, truth.cipher) == 0 && luks->sector == truth.sector &&
	       luks->data_offset == truth.data_offset && luks->data_size == truth.data_size &&
	       luks->iv_offset == truth.iv_offset && luks->integrity == truth.integrity &&
	       luks->allow_discards == truth.allow_discards && luks->key_len == truth.key_len &&
	       memcmp(luks->key, truth.key, truth.key_len) == 0;
}

/* Refused? Otherwise it has to be harmless. */
static bool refuses(const uint8_t *image, const char *file)
{
	struct luks luks;
	int ret = unlock_guarded(image, VOLUME_PASSPHRASE, file, &luks);

	if (ret == 0)
		assert_true(opens_the_same(&luks));
	luks_clear(&luks);
	return ret < 0;
}

static void refused(const uint8_t *image, const char *pass, const char *file, int errnum,
		    const char *words)
{
	struct luks luks;
	int ret = unlock_guarded(image, pass, file, &luks);

	if (ret != -errnum || !strstr(err.text, words))
		print_error("%d: %s\n", ret, err.text);
	assert_int_equal(ret, -errnum);
	assert_non_null(strstr(err.text, words));
	assert_null(luks.key);
}

/* ---- headers that somebody composed ---- */

static void put_sum(uint8_t *copy)
{
	unsigned n;

	memset(copy + SUM_AT, 0, SUM_LEN);
	assert_true(EVP_Digest(copy, copy_len, copy + SUM_AT, &n, EVP_sha256(), NULL));
}

static uint8_t *copy_of_image(void)
{
	uint8_t *image = malloc(len);

	assert_non_null(image);
	memcpy(image, good, len);
	return image;
}

static struct json_object *metadata_of(const uint8_t *image)
{
	struct json_object *metadata = json_tokener_parse((const char *)image + BINARY);

	assert_non_null(metadata);
	return metadata;
}

static void put_metadata(uint8_t *image, struct json_object *metadata)
{
	const char *text = json_object_to_json_string_ext(
		metadata, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	assert_true(strlen(text) < copy_len - BINARY);
	for (unsigned i = 0; i < 2; i++) {
		memset(image + i * copy_len + BINARY, 0, copy_len - BINARY);
		memcpy(image + i * copy_len + BINARY, text, strlen(text));
		put_sum(image + i * copy_len);
	}
}

static void seal_image(uint8_t *image, uint64_t count)
{
	struct json_object *metadata = metadata_of(image), *token = json_object_new_object();
	char *text = seal_text(metadata), hex[2 * SEAL_MAC + 1], number[24];
	uint8_t mac[SEAL_MAC];

	assert_int_equal(seal_mac(truth.key, truth.key_len, UUID, count, text, mac), 0);
	for (unsigned i = 0; i < SEAL_MAC; i++)
		snprintf(hex + 2 * i, 3, "%02x", mac[i]);
	snprintf(number, sizeof(number), "%u", (unsigned)count);
	json_object_object_add(token, "type", json_object_new_string(SEAL_TOKEN));
	json_object_object_add(token, "keyslots", json_object_new_array());
	json_object_object_add(token, "count", json_object_new_string(number));
	json_object_object_add(token, "mac", json_object_new_string(hex));
	json_object_object_add(luks_json_member(metadata, "tokens"), "0", token);
	put_metadata(image, metadata);
	json_object_put(metadata);
	free(text);
}

static void make_trust_file(const uint8_t *image)
{
	struct trust_volume volume = { .uuid = UUID, .seals = 1 };
	struct json_object *metadata = metadata_of(image);
	char *text = seal_text(metadata);

	snprintf(path, sizeof(path), "%s/ndio-trusted-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	close(mkstemp(path));
	assert_int_equal(seal_mac(truth.key, truth.key_len, UUID, 1, text, volume.mac), 0);
	assert_int_equal(trust_file_make(path, &volume, text, true, &err), 0);
	json_object_put(metadata);
	free(text);
}

static int set_up(void **state)
{
	uint64_t be;

	if (volumes_setup(state) < 0)
		return -1;
	volume_format("disk", 3, SMALL " --uuid " UUID);
	good = volume_read("disk", &len);
	memcpy(&be, good + 8, sizeof(be));
	copy_len = be64toh(be);
	assert_int_equal(unlock_guarded(good, VOLUME_PASSPHRASE, NULL, &truth), 0);
	seal_image(good, 1);
	make_trust_file(good);
	return 0;
}

static int tear_down(void **state)
{
	unlink(path);
	luks_clear(&truth);
	free(good);
	return volumes_teardown(state);
}

/* ---- what is found out ---- */

static void what_was_sealed_opens(void **state)
{
	struct luks luks;

	assert_int_equal(unlock_guarded(good, VOLUME_PASSPHRASE, NULL, &luks), 0);
	assert_true(opens_the_same(&luks));
	luks_clear(&luks);
	assert_int_equal(unlock_guarded(good, VOLUME_PASSPHRASE, path, &luks), 0);
	assert_true(opens_the_same(&luks));
	luks_clear(&luks);
}

/* Another value in place of one. */
static struct json_object *other_value(struct json_object *value)
{
	char text[2048];
	size_t n;

	switch (json_object_get_type(value)) {
	case json_type_int:
		return json_object_new_int64(json_object_get_int64(value) + 1);
	case json_type_string:
		n = snprintf(text, sizeof(text), "%s", json_object_get_string(value));
		if (n > 0 && n < sizeof(text))
			text[n - 1] ^= 1;
		return json_object_new_string(n > 0 ? text : "x");
	case json_type_array:
		value = json_object_new_array();
		json_object_array_add(value, json_object_new_string("1"));
		return value;
	default:
		return json_object_new_boolean(!json_object_get_boolean(value));
	}
}

struct walk {
	uint8_t *image;
	struct json_object *root;
	bool in_seal; /* what isn't under it, and opens nothing */
	unsigned tried, loaded;
};

static void expect_refusal(struct walk *walk)
{
	bool refused_by_file, refused_by_seal;

	put_metadata(walk->image, walk->root);
	refused_by_file = refuses(walk->image, path);
	walk->loaded += refused_by_file && strstr(err.text, "isn't the one that was sealed");
	refused_by_seal = refuses(walk->image, NULL);
	walk->tried++;
	if (!walk->in_seal && (!refused_by_file || !refused_by_seal))
		print_error("taken: %s\n", json_object_to_json_string(walk->root));
	assert_true(walk->in_seal || (refused_by_file && refused_by_seal));
}

static bool is_seal(struct json_object *value)
{
	return strcmp(luks_json_text(luks_json_member(value, "type")), SEAL_TOKEN) == 0;
}

/* Each member: another, gone, and one that is new beside it; and then what is in it. */
static void walk_members(struct walk *walk, struct json_object *object)
{
	size_t count = json_object_object_length(object), n = 0;
	const char **names = calloc(count, sizeof(*names));

	json_object_object_foreach(object, name, ignored)
	{
		(void)ignored;
		names[n++] = strdup(name);
	}
	for (size_t i = 0; i < count; i++) {
		struct json_object *value = json_object_get(luks_json_member(object, names[i]));
		bool outside = !walk->in_seal;

		walk->in_seal |= is_seal(value);
		json_object_object_add(object, names[i], other_value(value));
		expect_refusal(walk);
		json_object_object_del(object, names[i]);
		expect_refusal(walk);
		json_object_object_add(object, names[i], value);
		if (json_object_is_type(value, json_type_object))
			walk_members(walk, value);
		if (outside)
			walk->in_seal = false;
		free((char *)names[i]);
	}
	free(names);
}

static void each_member_that_is_another_is_refused(void **state)
{
	struct walk walk = { .image = copy_of_image(), .root = metadata_of(good) };

	walk_members(&walk, walk.root);
	/* And not all of them because libcryptsetup finds them wrong. */
	assert_true(walk.tried > 60);
	assert_true(walk.loaded > 10);
	json_object_put(walk.root);
	free(walk.image);
}

static void members_that_are_new_are_refused(void **state)
{
	static const char *const objects[] = { "keyslots", "digests", "segments", "config" };

	for (unsigned i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		struct walk walk = { .image = copy_of_image(), .root = metadata_of(good) };
		struct json_object *first = luks_json_member(walk.root, objects[i]);

		if (i < 3)
			first = luks_json_numbered(first, 0);
		json_object_object_add(first, "new", json_object_new_string("1"));
		expect_refusal(&walk);
		json_object_put(walk.root);
		free(walk.image);
	}
}

static void flip(uint8_t *image, size_t at, unsigned copies)
{
	for (unsigned i = 0; i < 2; i++)
		if (copies & 1U << i) {
			image[i * copy_len + at] ^= 1 << at % 8;
			put_sum(image + i * copy_len);
		}
}

/* With checksums that are right, in either copy or both. */
static void bytes_that_are_others_are_refused_or_harmless(void **state)
{
	size_t text = strlen((const char *)good + BINARY);
	size_t step = getenv("NDIO_EACH") ? 1 : 37;
	unsigned tried = 0, refusals = 0;

	for (size_t at = 0; at < BINARY + text + 2; at += step) {
		if (at >= FIELDS && at < BINARY)
			at = BINARY + at % step;
		if (at >= SUM_AT && at < SUM_AT + SUM_LEN)
			continue;
		for (unsigned copies = 1; copies <= 3; copies++) {
			uint8_t *image = copy_of_image();

			flip(image, at, copies);
			refusals += refuses(image, path);
			refusals += refuses(image, NULL);
			tried += 2;
			free(image);
		}
	}
	assert_true(refusals > tried / 4 && refusals < tried);
}

/* What is in a key slot isn't sealed: it doesn't fit, or isn't read. */
static void key_areas_that_are_others_open_nothing_else(void **state)
{
	size_t step = getenv("NDIO_EACH") ? 4096 : 65536;

	for (size_t at = 2 * copy_len; at < len; at += step) {
		uint8_t *image = copy_of_image();

		image[at + 17] ^= 4;
		refuses(image, path);
		refuses(image, NULL);
		free(image);
	}
}

/* ---- attacks by name ---- */

static void edited(const char *text, const char *replacement, const char *words)
{
	uint8_t *image;
	size_t n;

	volume_write("edited", good, len);
	volume_edit("edited", text, replacement);
	image = volume_read("edited", &n);
	refused(image, VOLUME_PASSPHRASE, path, ESTALE, words);
	refused(image, "never tried", path, ESTALE, words);
	assert_true(refuses(image, NULL));
	free(image);
}

static void what_changed_is_said_before_a_passphrase_is_tried(void **state)
{
	edited("\"aes-xts-plain64\",\"sector_size\"", "\"aes-cbc-plain64\",\"sector_size\"",
	       "segment 0: encryption was aes-xts-plain64 and is aes-cbc-plain64");
	edited("\"offset\":\"2097152\",\"size\"", "\"offset\":\"2101248\",\"size\"",
	       "segment 0: offset was 2097152 and is 2101248");
	edited("\"sector_size\":4096", "\"sector_size\":512", "segment 0: sector_size changed");
	edited("\"size\":\"dynamic\"", "\"size\":\"524288\"",
	       "segment 0: size was dynamic and is 524288");
	edited("\"iterations\":1000,", "\"iterations\":1001,", " changed");
	edited("\"config\":{", "\"config\":{\"flags\":[\"allow-discards\"],", "config changed");
}

/* The seal that it had fits it: only who remembers knows. */
static void an_older_header_is_found_out_by_the_file(void **state)
{
	uint8_t *older;
	struct luks luks;
	size_t n;

	volume_write("older", good, len);
	volumes_run("printf revoked >revoked && cryptsetup luksAddKey -q --key-file pass "
		    "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 older revoked");
	older = volume_read("older", &n);
	refused(older, "revoked", NULL, ESTALE, "isn't the one that was sealed");
	seal_image(older, 1);
	assert_int_equal(unlock_guarded(older, "revoked", NULL, &luks), 0);
	luks_clear(&luks);
	refused(older, "revoked", path, ESTALE, "key slot 1 is new");
	free(older);
}

/* All of it somebody else's, but for the UUID and the seal. */
static void a_key_of_his_own_is_refused(void **state)
{
	struct json_object *his, *mine = metadata_of(good);
	uint8_t *image;
	size_t n;

	volume_format("his", 3, SMALL " --uuid " UUID);
	image = volume_read("his", &n);
	refused(image, VOLUME_PASSPHRASE, path, ESTALE, "digest 0: ");
	his = metadata_of(image);
	json_object_object_add(his, "tokens", json_object_get(luks_json_member(mine, "tokens")));
	put_metadata(image, his);
	refused(image, VOLUME_PASSPHRASE, NULL, ESTALE, "isn't the one that was sealed");
	json_object_put(his);
	json_object_put(mine);
	free(image);
}

static void luks1_is_refused_by_name(void **state)
{
	uint8_t *image;
	size_t n, luks2_len = len;

	volume_format("old", 3, "--type luks1 --uuid " UUID);
	image = volume_read("old", &n);
	len = n;
	refused(image, VOLUME_PASSPHRASE, path, ENOTSUP, "LUKS1's header can't be sealed");
	len = luks2_len;
	free(image);
}

/* A change that was cut off: either is accepted, until one of them was seen. */
static void a_change_that_was_cut_off_is_settled(void **state)
{
	uint8_t *next = copy_of_image();
	struct json_object *metadata = metadata_of(good);
	struct trusted trusted;
	char *text;

	json_object_object_add(luks_json_member(metadata, "config"), "flags",
			       json_object_new_array());
	put_metadata(next, metadata);
	text = seal_text(metadata);
	assert_int_equal(trusted_open(&trusted, path, false, &err), 0);
	assert_int_equal(trust_intend_header(&trusted.trust, text, truth.key, truth.key_len, &err),
			 0);
	trusted_close(&trusted, &err);
	assert_false(refuses(good, path));
	assert_false(refuses(next, path));

	assert_int_equal(trusted_open(&trusted, path, false, &err), 0);
	assert_int_equal(trust_settle_header(&trusted.trust, text, truth.key, truth.key_len, &err),
			 0);
	trusted_close(&trusted, &err);
	refused(good, VOLUME_PASSPHRASE, path, ESTALE, "config changed");
	assert_false(refuses(next, path));
	json_object_put(metadata);
	free(text);
	free(next);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_sealed_opens),
		cmocka_unit_test(each_member_that_is_another_is_refused),
		cmocka_unit_test(members_that_are_new_are_refused),
		cmocka_unit_test(bytes_that_are_others_are_refused_or_harmless),
		cmocka_unit_test(key_areas_that_are_others_open_nothing_else),
		cmocka_unit_test(what_changed_is_said_before_a_passphrase_is_tried),
		cmocka_unit_test(an_older_header_is_found_out_by_the_file),
		cmocka_unit_test(a_key_of_his_own_is_refused),
		cmocka_unit_test(luks1_is_refused_by_name),
		cmocka_unit_test(a_change_that_was_cut_off_is_settled),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
