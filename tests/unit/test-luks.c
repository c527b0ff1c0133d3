#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/cipher.h"
#include "luks/luks.h"
#include "memory/secret.h"
#include "volumes.h"

#define LUKS1 "--type luks1"
#define LUKS2 "--type luks2"
#define MIB   (UINT64_C(1) << 20)

/* A volume in memory, so that nothing but its read() could reach the file. */
struct image {
	char *content;
	size_t len;
	int error;     /* what reading fails with, or 0 */
	uint64_t read; /* bytes that were */
	bool detached; /* the data are elsewhere */
};

static int image_read(void *opaque, void *buf, size_t len, uint64_t offset)
{
	struct image *image = opaque;

	assert_true(offset <= image->len && len <= image->len - offset);
	memcpy(buf, image->content + offset, len);
	image->read += len;
	return image->error;
}

static int image_unlock(struct image *image, const char *name, const char *pass, struct luks *luks,
			struct error *err)
{
	const struct luks_source source = { .name = name,
					    .size = image->len,
					    .read = image_read,
					    .opaque = image,
					    .detached = image->detached };
	const struct luks_pass how = {
		.data = pass, .len = strlen(pass), .slot = LUKS_ANY_SLOT, .fits = cipher_supported
	};

	err->text[0] = '\0';
	return luks_unlock(&source, &how, luks, err);
}

static int unlock(const char *name, const char *pass, struct luks *luks, struct error *err)
{
	struct image image = { 0 };
	int ret;

	image.content = volume_read(name, &image.len);
	ret = image_unlock(&image, name, pass, luks, err);
	free(image.content);
	return ret;
}

/* Unlocks with the right passphrase; the caller clears luks. */
static void opens(const char *name, struct luks *luks)
{
	struct error err;
	int ret = unlock(name, VOLUME_PASSPHRASE, luks, &err);

	assert_string_equal(err.text, "");
	assert_int_equal(ret, 0);
	assert_non_null(luks->key);
}

static void refused(const char *name, const char *pass, int errnum, const char *message)
{
	struct luks luks;
	struct error err;
	int ret = unlock(name, pass, &luks, &err);

	assert_string_equal(err.text, message);
	assert_int_equal(ret, -errnum);
	assert_null(luks.key);
}

static void edited_is_refused(const char *text, const char *replacement, int errnum,
			      const char *message)
{
	volume_format("edited", 20, LUKS2 " --sector-size 4096");
	volume_edit("edited", text, replacement);
	refused("edited", VOLUME_PASSPHRASE, errnum, message);
}

static void key_is(const struct luks *luks, const unsigned char *key, size_t key_len)
{
	assert_int_equal(luks->key_len, key_len);
	assert_memory_equal(luks->key, key, key_len);
}

static void known_key_comes_back(const char *options, size_t key_len, struct luks *luks)
{
	unsigned char key[64];
	char line[256];

	for (size_t i = 0; i < key_len; i++)
		key[i] = i * 5 + 1;
	volume_write("key", key, key_len);
	snprintf(line, sizeof(line), "%s -s %zu --volume-key-file key", options, key_len * 8);
	volume_format("disk", 20, line);
	opens("disk", luks);
	key_is(luks, key, key_len);
}

static void luks2_xts_with_4096_byte_sectors(void **state)
{
	struct luks luks;

	(void)state;
	known_key_comes_back(LUKS2 " -c aes-xts-plain64 --sector-size 4096", 64, &luks);
	assert_int_equal(luks.version, 2);
	assert_string_equal(luks.cipher, "aes-xts-plain64");
	assert_int_equal(luks.sector, 4096);
	assert_int_equal(luks.data_offset, 16 * MIB);
	assert_int_equal(luks.data_size, 0);
	assert_int_equal(luks.iv_offset, 0);
	luks_clear(&luks);
}

static void luks2_xts_128_with_512_byte_sectors(void **state)
{
	struct luks luks;

	(void)state;
	known_key_comes_back(LUKS2 " -c aes-xts-plain64 --sector-size 512", 32, &luks);
	assert_int_equal(luks.sector, 512);
	luks_clear(&luks);
}

static void luks2_cbc_essiv(void **state)
{
	struct luks luks;

	(void)state;
	known_key_comes_back(LUKS2 " -c aes-cbc-essiv:sha256 --sector-size 512", 24, &luks);
	assert_string_equal(luks.cipher, "aes-cbc-essiv:sha256");
	luks_clear(&luks);
}

static void luks1_cbc_essiv(void **state)
{
	struct luks luks;

	(void)state;
	known_key_comes_back(LUKS1 " -c aes-cbc-essiv:sha256", 32, &luks);
	assert_int_equal(luks.version, 1);
	assert_string_equal(luks.cipher, "aes-cbc-essiv:sha256");
	assert_int_equal(luks.sector, 512);
	assert_int_equal(luks.data_offset, 2 * MIB);
	assert_int_equal(luks.data_size, 0);
	assert_int_equal(luks.iv_offset, 0);
	luks_clear(&luks);
}

static void luks1_xts_128(void **state)
{
	struct luks luks;

	(void)state;
	known_key_comes_back(LUKS1 " -c aes-xts-plain64", 32, &luks);
	assert_string_equal(luks.cipher, "aes-xts-plain64");
	luks_clear(&luks);
}

static void detached_header(void **state)
{
	struct luks luks;

	(void)state;
	volumes_run("truncate -s 4M data");
	volume_format("data", 4, LUKS2 " --sector-size 512 --header header --offset 2048");
	opens("header", &luks);
	assert_int_equal(luks.data_offset, MIB);
	luks_clear(&luks);
	refused("data", VOLUME_PASSPHRASE, EINVAL, "data: not a LUKS volume");
}

static const char elsewhere[] =
	"header: this is a detached LUKS header: its data are elsewhere: give it as the header "
	"(header=, --header) of the disk that has them";

static void header_without_its_data(const char *options)
{
	struct image image = { .detached = true };
	struct luks luks;
	struct error err;

	volumes_run("rm -f header");
	volume_format("data", 4, options);
	refused("header", VOLUME_PASSPHRASE, EINVAL, elsewhere);
	image.content = volume_read("header", &image.len);
	assert_int_equal(image_unlock(&image, "header", VOLUME_PASSPHRASE, &luks, &err), 0);
	assert_true(luks.data_offset < luks.header_len);
	luks_clear(&luks);
	free(image.content);
}

static void luks1_header_without_its_data(void **state)
{
	(void)state;
	header_without_its_data(LUKS1 " --header header");
}

static void luks2_header_without_its_data(void **state)
{
	(void)state;
	header_without_its_data(LUKS2 " --header header");
}

/* ---- key slots ---- */

static void slot_that_is_not_encrypted(void **state)
{
	static const char *const spellings[] = {
		"cipher_null-ecb",
		"cipher_null",
		"cipher_null-cbc-plain64",
		"null-ecb",
		"aes-ecb",
		"capi:cipher_null-ecb",
		"aes-xts-null",
		"twofish-xts-plain64",
		"none",
	};
	char before[100] = "\"encryption\":\"aes-xts-plain64\",\"key_size\":";
	char area[100], wanted[200];

	(void)state;
	volume_format("edited", 20, LUKS2);
	for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
		snprintf(area, sizeof(area), "\"encryption\":\"%s\",\"key_size\":", spellings[i]);
		volume_edit("edited", before, area);
		strcpy(before, area);
		snprintf(wanted, sizeof(wanted),
			 "edited: no key slot can be opened (slot 0 is "
			 "encrypted with %s: only aes-xts and aes-cbc are trusted)",
			 spellings[i]);
		refused("edited", VOLUME_PASSPHRASE, ENOTSUP, wanted);
		refused("edited", "any", ENOTSUP, wanted);
	}
}

static void slot_that_is_encrypted_with_too_short_a_key(void **state)
{
	(void)state;
	volume_format("edited", 20, LUKS2);
	volume_edit("edited", "\"encryption\":\"aes-xts-plain64\",\"key_size\":64",
		    "\"encryption\":\"aes-xts-plain64\",\"key_size\":8");
	refused("edited", VOLUME_PASSPHRASE, ENOTSUP,
		"edited: no key slot can be opened (slot 0 is encrypted with a key of 8 bytes, "
		"which aes-xts-plain64 doesn't have)");
}

static void luks1_that_is_not_encrypted(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS1);
	volume_overwrite("disk", 8, "cipher_null", sizeof("cipher_null"));
	volume_overwrite("disk", 40, "ecb", sizeof("ecb"));
	refused("disk", VOLUME_PASSPHRASE, ENOTSUP,
		"disk: cipher cipher_null-ecb is not supported");
}

static void second_slot_opens_behind(const char *text, const char *replacement)
{
	struct luks luks;
	struct error err;

	volume_format("disk", 20, LUKS2);
	volumes_run("printf second >second && cryptsetup luksAddKey -q --pbkdf pbkdf2 "
		    "--pbkdf-force-iterations 1000 -d pass disk second");
	volume_edit("disk", text, replacement);
	assert_int_equal(unlock("disk", "second", &luks, &err), 0);
	assert_int_equal(luks.slot, 1);
	luks_clear(&luks);
}

static void a_bad_slot_hides_none(void **state)
{
	(void)state;
	/* The segment's cipher comes without a key_size behind it. */
	second_slot_opens_behind("\"encryption\":\"aes-xts-plain64\",\"key_size\":",
				 "\"encryption\":\"cipher_null-ecb\",\"key_size\":");
	second_slot_opens_behind("\"hash\":\"sha256\"", "\"hash\":\"md17\"");
	second_slot_opens_behind("\"iterations\":1000", "\"iterations\":2147483647");
	second_slot_opens_behind("\"key_size\":64", "\"key_size\":16");
	refused("disk", "wrong", EPERM,
		"disk: no key slot opens with this passphrase (slot 0 has a "
		"key that doesn't fit: cipher aes-xts-plain64 is not supported with a key of 128 "
		"bits)");
}

static void slots_that_take_too_long(void **state)
{
	(void)state;
	volume_format("edited", 20, LUKS2);
	volume_edit("edited", "\"iterations\":1000", "\"iterations\":2147483647");
	refused("edited", VOLUME_PASSPHRASE, ETIME,
		"edited: no key slot can be opened (slot 0 "
		"takes about 2147 seconds, and the limit is 120 (max-kdf-time))");
	volume_edit("edited", "\"type\":\"pbkdf2\",\"hash\":\"sha256\",\"iterations\":2147483647",
		    "\"type\":\"argon2id\",\"time\":1048576,\"memory\":65536,\"cpus\":1");
	refused("edited", VOLUME_PASSPHRASE, ETIME,
		"edited: no key slot can be opened (slot 0 "
		"takes about 67108 seconds, and the limit is 120 (max-kdf-time))");
	volume_edit("edited", "\"time\":1048576", "\"time\":-1");
	refused("edited", VOLUME_PASSPHRASE, EINVAL,
		"edited: no key slot can be opened (slot 0 has "
		"an impossible key derivation)");
}

/* What tells the right volume key is derived for each key slot. */
static void a_digest_that_takes_too_long(void **state)
{
	static const uint8_t iterations[] = { 0x7f, 0xff, 0xff, 0xff };

	(void)state;
	volume_format("edited", 20, LUKS2);
	volume_edit("edited", "\"hash\":\"sha256\",\"iterations\":1000,\"salt\"",
		    "\"hash\":\"sha256\",\"iterations\":2000000000,\"salt\"");
	refused("edited", VOLUME_PASSPHRASE, ETIME,
		"edited: no key slot can be opened (slot 0 "
		"takes about 2000 seconds, and the limit is 120 (max-kdf-time))");
	volume_format("disk", 20, LUKS1);
	volume_overwrite("disk", 164, iterations, sizeof(iterations));
	refused("disk", VOLUME_PASSPHRASE, ETIME,
		"disk: no key slot can be opened (slot 0 "
		"takes about 2147 seconds, and the limit is 120 (max-kdf-time))");
}

static void an_unbound_slot_never_opens(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run("printf other >other && cryptsetup luksAddKey -q --unbound --key-size 512 "
		    "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 -d pass disk other");
	refused("disk", "other", EPERM, "disk: no key slot opens with this passphrase");
}

static void a_slot_with_the_priority_ignore(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run("cryptsetup config --priority ignore -S 0 disk");
	refused("disk", VOLUME_PASSPHRASE, ENOENT,
		"disk: no key slot can be opened (slot 0 has the "
		"priority \"ignore\": it is only tried when it is chosen by its number)");
}

static void a_newline_too_many_is_told(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	refused("disk", VOLUME_PASSPHRASE "\n", EPERM,
		"disk: no key slot opens with this "
		"passphrase, but slot 0 does without the newline at its end: if it is from a file, "
		"make that without one (printf %s, not echo)");
	refused("disk", "wrong\n", EPERM,
		"disk: no key slot opens with this passphrase, with or "
		"without the newline at its end");
}

static void any_key_slot_opens(void **state)
{
	struct luks luks;
	struct error err;

	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run("printf second >second && cryptsetup luksAddKey -q --pbkdf pbkdf2 "
		    "--pbkdf-force-iterations 1000 -d pass disk second");
	assert_int_equal(unlock("disk", "second", &luks, &err), 0);
	luks_clear(&luks);
}

static void empty_passphrase_opens_where_it_is_one(void **state)
{
	struct luks luks;
	struct error err;

	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run(": >empty && cryptsetup luksAddKey -q --force-password --pbkdf pbkdf2 "
		    "--pbkdf-force-iterations 1000 -d pass disk empty");
	assert_int_equal(unlock("disk", "", &luks, &err), 0);
	luks_clear(&luks);
}

static void wrong_passphrase(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	refused("disk", "wrong", EPERM, "disk: no key slot opens with this passphrase");
	volume_format("disk1", 20, LUKS1);
	refused("disk1", "wrong", EPERM, "disk1: no key slot opens with this passphrase");
}

static void empty_passphrase(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	refused("disk", "", EPERM, "disk: no key slot opens with an empty passphrase");
}

static void no_key_slot(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run("cryptsetup luksErase -q disk");
	refused("disk", "any", EPERM, "disk: the LUKS header has no key slot that is in use");
}

static void no_active_luks1_key_slot(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS1);
	volumes_run("cryptsetup luksErase -q disk");
	refused("disk", "any", EPERM, "disk: the LUKS header has no key slot that is in use");
}

static void large_key_areas_are_read(void **state)
{
	struct image image = { 0 };
	struct luks luks;
	struct error err;

	(void)state;
	volume_format("large", 64,
		      LUKS2 " --luks2-metadata-size 4m --luks2-keyslots-size 32m --offset 81920");
	image.content = volume_read("large", &image.len);
	assert_int_equal(image_unlock(&image, "large", VOLUME_PASSPHRASE, &luks, &err), 0);
	assert_int_equal(image.read, 40 * MIB + MIB); /* and the end */
	luks_clear(&luks);
	free(image.content);
}

static void a_damaged_copy_is_repaired_in_private(const char *name, uint64_t damaged_at)
{
	struct image image = { 0 };
	struct luks luks;
	struct error err;
	char *before;

	volume_format(name, 20, LUKS2);
	volume_zero(name, damaged_at, 16 << 10);
	image.content = volume_read(name, &image.len);
	before = malloc(image.len);
	assert_non_null(before);
	memcpy(before, image.content, image.len);
	assert_int_equal(image_unlock(&image, name, VOLUME_PASSPHRASE, &luks, &err), 0);
	assert_memory_equal(before, image.content, image.len);
	luks_clear(&luks);
	free(before);
	free(image.content);
}

static void first_copy_zeroed(void **state)
{
	(void)state;
	a_damaged_copy_is_repaired_in_private("first", 0);
}

static void second_copy_zeroed(void **state)
{
	(void)state;
	a_damaged_copy_is_repaired_in_private("second", 16 << 10);
}

static void both_copies_zeroed(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volume_zero("disk", 0, 32 << 10);
	refused("disk", VOLUME_PASSPHRASE, EINVAL, "disk: not a LUKS volume");
}

static void both_copies_damaged(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volume_zero("disk", 4096, 100);
	volume_zero("disk", (16 << 10) + 4096, 100);
	refused("disk", VOLUME_PASSPHRASE, EINVAL,
		"disk: the LUKS header is damaged beyond repair");
}

static void second_copy_damaged_and_first_zeroed(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volume_zero("disk", 0, 16 << 10);
	volume_zero("disk", (16 << 10) + 4096, 100);
	refused("disk", VOLUME_PASSPHRASE, EINVAL,
		"disk: the LUKS header is damaged beyond repair");
}

static void truncated(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2);
	volumes_run("truncate -s 20000 disk");
	refused("disk", VOLUME_PASSPHRASE, EINVAL,
		"disk: the LUKS header is damaged beyond repair, or the rest of it is missing: "
		"there are only 20000 bytes");
}

static void luks1_truncated(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS1);
	volumes_run("truncate -s 100000 disk");
	refused("disk", VOLUME_PASSPHRASE, EINVAL,
		"disk: the LUKS header is damaged beyond repair, or the rest of it is missing: "
		"there are only 100000 bytes");
}

static void random_file(void **state)
{
	(void)state;
	volumes_run("head -c 1M /dev/urandom >random");
	refused("random", VOLUME_PASSPHRASE, EINVAL, "random: not a LUKS volume");
}

static void empty_file(void **state)
{
	(void)state;
	volume_write("nothing", "", 0);
	refused("nothing", VOLUME_PASSPHRASE, EINVAL, "nothing: not a LUKS volume");
}

static void reading_fails(void **state)
{
	struct image image = { .error = -EIO };
	struct luks luks;
	struct error err;

	(void)state;
	volume_format("disk", 20, LUKS2);
	image.content = volume_read("disk", &image.len);
	assert_int_equal(image_unlock(&image, "disk", "any", &luks, &err), -EIO);
	assert_string_equal(err.text, "disk: reading the LUKS header: Input/output error");
	free(image.content);
}

static void other_cipher(void **state)
{
	(void)state;
	edited_is_refused("\"iv_tweak\":\"0\",\"encryption\":\"aes-xts-plain64\"",
			  "\"iv_tweak\":\"0\",\"encryption\":\"serpent-xts-plain64\"", ENOTSUP,
			  "edited: cipher serpent-xts-plain64 is not supported");
}

static void other_iv(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS2 " -c aes-xts-plain");
	refused("disk", VOLUME_PASSPHRASE, ENOTSUP, "disk: cipher aes-xts-plain is not supported");
}

static void luks1_other_cipher(void **state)
{
	(void)state;
	volume_format("disk", 20, LUKS1);
	volume_overwrite("disk", 8, "twofish", sizeof("twofish"));
	refused("disk", VOLUME_PASSPHRASE, ENOTSUP,
		"disk: cipher twofish-xts-plain64 is not supported");
}

static void integrity(void **state)
{
	(void)state;
	edited_is_refused("\"sector_size\":4096",
			  "\"sector_size\":4096,\"integrity\":{\"type\":\"hmac(sha256)\","
			  "\"journal_encryption\":\"none\",\"journal_integrity\":\"none\"}",
			  ENOTSUP, "edited: cipher aes-xts-plain64 hmac(sha256) is not supported");
	edited_is_refused("\"sector_size\":4096",
			  "\"sector_size\":4096,\"integrity\":{\"type\":\"hmac(sha256)\","
			  "\"journal_encryption\":\"none\",\"journal_integrity\":\"crc32c\"}",
			  ENOTSUP,
			  "edited: integrity with journal_integrity crc32c is not supported");
}

static void unknown_requirement(void **state)
{
	(void)state;
	edited_is_refused("\"keyslots_size\":",
			  "\"requirements\":{\"mandatory\":[\"time-travel\"]},"
			  "\"keyslots_size\":",
			  ENOTSUP, "edited: requirement \"time-travel\" is not supported");
}

static void requirement_that_is_no_name(void **state)
{
	(void)state;
	edited_is_refused("\"keyslots_size\":",
			  "\"requirements\":{\"mandatory\":[null]},\"keyslots_size\":", EINVAL,
			  "edited: the LUKS header is damaged beyond repair");
}

static void control_characters_are_not_shown(void **state)
{
	(void)state;
	edited_is_refused("\"keyslots_size\":",
			  "\"requirements\":{\"mandatory\":[\"\\u001b[2J\"]},"
			  "\"keyslots_size\":",
			  ENOTSUP, "edited: requirement \"(unprintable)\" is not supported");
	volume_format("disk", 20, LUKS1);
	volume_overwrite("disk", 8, "\033[2J", sizeof("\033[2J"));
	refused("disk", VOLUME_PASSPHRASE, ENOTSUP,
		"disk: cipher ?[2J-xts-plain64 is not supported");
}

static void reencryption(void **state)
{
	(void)state;
	volume_format("disk", 40, LUKS2);
	volumes_run("cryptsetup reencrypt -q --init-only --resilience none -d pass disk");
	refused("disk", VOLUME_PASSPHRASE, ENOTSUP,
		"disk: a reencryption is under way (requirement \"online-reencrypt-v2\")");
}

static void encryption_begun(void **state)
{
	(void)state;
	volumes_run("truncate -s 40M plain && cryptsetup reencrypt -q --encrypt --init-only "
		    "--reduce-device-size 16M --type luks2 --pbkdf pbkdf2 "
		    "--pbkdf-force-iterations 1000 -d pass plain");
	refused("plain", VOLUME_PASSPHRASE, ENOTSUP,
		"plain: a reencryption is under way (requirement \"online-reencrypt-v2\")");
}

static void segment_flag(void **state)
{
	(void)state;
	edited_is_refused("\"sector_size\":4096", "\"sector_size\":4096,\"flags\":[\"future\"]",
			  ENOTSUP, "edited: segment flag \"future\" is not supported");
}

static void linear_segment(void **state)
{
	(void)state;
	edited_is_refused("\"segments\":{\"0\":{\"type\":\"crypt\"",
			  "\"segments\":{\"0\":{\"type\":\"linear\"", ENOTSUP,
			  "edited: segment type linear is not supported");
}

static void two_segments(void **state)
{
	(void)state;
	volume_format("two", 20, LUKS2 " --sector-size 4096");
	volume_edit("two", "\"segments\":[\"0\"]", "\"segments\":[\"0\",\"1\"]");
	volume_edit("two", "\"size\":\"dynamic\",",
		    "\"size\":\"4096\",\"iv_tweak\":\"0\",\"encryption\":"
		    "\"aes-xts-plain64\",\"sector_size\":4096},\"1\":{\"type\":\"crypt\","
		    "\"offset\":\"16781312\",\"size\":\"dynamic\",");
	refused("two", VOLUME_PASSPHRASE, ENOTSUP, "two: 2 data segments are not supported");
}

static void fixed_length_and_iv_offset(void **state)
{
	struct luks luks;

	(void)state;
	volume_format("fixed", 20, LUKS2 " --sector-size 4096");
	volume_edit("fixed", "\"dynamic\",\"iv_tweak\":\"0\"", "\"1048576\",\"iv_tweak\":\"8000\"");
	opens("fixed", &luks);
	assert_int_equal(luks.data_size, MIB);
	assert_int_equal(luks.iv_offset, 8000);
	luks_clear(&luks);
}

static void no_data(void **state)
{
	(void)state;
	edited_is_refused("\"dynamic\"", "\"0\"", EINVAL,
			  "edited: the LUKS header is damaged beyond repair");
}

static void part_of_a_sector(void **state)
{
	(void)state;
	edited_is_refused("\"dynamic\"", "\"4608\"", EINVAL,
			  "edited: the LUKS header is damaged beyond repair");
}

static void odd_offset(void **state)
{
	(void)state;
	edited_is_refused("\"offset\":\"16777216\"", "\"offset\":\"16777728\"", EINVAL,
			  "edited: the data don't start or end on a sector of 4096");
}

static void overflowing_size(void **state)
{
	(void)state;
	edited_is_refused("\"dynamic\"", "\"9223372036854771712\"", EINVAL,
			  "edited: the data end beyond any device");
}

static void enormous_size(void **state)
{
	(void)state;
	edited_is_refused("\"dynamic\"", "\"18446744073709547520\"", EINVAL,
			  "edited: the LUKS header has an impossible size: "
			  "18446744073709547520");
}

static void size_that_is_no_number(void **state)
{
	(void)state;
	edited_is_refused("\"dynamic\"", "\"40x6\"", EINVAL,
			  "edited: the LUKS header is damaged beyond repair");
}

static void odd_iv_offset(void **state)
{
	(void)state;
	edited_is_refused("\"iv_tweak\":\"0\"", "\"iv_tweak\":\"9\"", EINVAL,
			  "edited: the first IV is not that of a sector of 4096");
}

static void odd_sector_size(void **state)
{
	(void)state;
	edited_is_refused("\"sector_size\":4096", "\"sector_size\":1536", EINVAL,
			  "edited: the LUKS header has an impossible sector size: 1536");
}

static void clearing_twice_is_harmless(void **state)
{
	struct luks luks = { 0 };

	(void)state;
	luks_clear(&luks);
	luks_clear(&luks);
	assert_null(luks.key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(luks2_xts_with_4096_byte_sectors),
		cmocka_unit_test(luks2_xts_128_with_512_byte_sectors),
		cmocka_unit_test(luks2_cbc_essiv),
		cmocka_unit_test(luks1_cbc_essiv),
		cmocka_unit_test(luks1_xts_128),
		cmocka_unit_test(detached_header),
		cmocka_unit_test(luks1_header_without_its_data),
		cmocka_unit_test(luks2_header_without_its_data),
		cmocka_unit_test(slot_that_is_not_encrypted),
		cmocka_unit_test(slot_that_is_encrypted_with_too_short_a_key),
		cmocka_unit_test(luks1_that_is_not_encrypted),
		cmocka_unit_test(a_bad_slot_hides_none),
		cmocka_unit_test(slots_that_take_too_long),
		cmocka_unit_test(a_digest_that_takes_too_long),
		cmocka_unit_test(an_unbound_slot_never_opens),
		cmocka_unit_test(a_slot_with_the_priority_ignore),
		cmocka_unit_test(a_newline_too_many_is_told),
		cmocka_unit_test(any_key_slot_opens),
		cmocka_unit_test(empty_passphrase_opens_where_it_is_one),
		cmocka_unit_test(wrong_passphrase),
		cmocka_unit_test(empty_passphrase),
		cmocka_unit_test(no_key_slot),
		cmocka_unit_test(no_active_luks1_key_slot),
		cmocka_unit_test(large_key_areas_are_read),
		cmocka_unit_test(first_copy_zeroed),
		cmocka_unit_test(second_copy_zeroed),
		cmocka_unit_test(both_copies_zeroed),
		cmocka_unit_test(both_copies_damaged),
		cmocka_unit_test(second_copy_damaged_and_first_zeroed),
		cmocka_unit_test(truncated),
		cmocka_unit_test(luks1_truncated),
		cmocka_unit_test(random_file),
		cmocka_unit_test(empty_file),
		cmocka_unit_test(reading_fails),
		cmocka_unit_test(other_cipher),
		cmocka_unit_test(other_iv),
		cmocka_unit_test(luks1_other_cipher),
		cmocka_unit_test(integrity),
		cmocka_unit_test(unknown_requirement),
		cmocka_unit_test(requirement_that_is_no_name),
		cmocka_unit_test(control_characters_are_not_shown),
		cmocka_unit_test(reencryption),
		cmocka_unit_test(encryption_begun),
		cmocka_unit_test(segment_flag),
		cmocka_unit_test(linear_segment),
		cmocka_unit_test(two_segments),
		cmocka_unit_test(fixed_length_and_iv_offset),
		cmocka_unit_test(no_data),
		cmocka_unit_test(part_of_a_sector),
		cmocka_unit_test(odd_offset),
		cmocka_unit_test(overflowing_size),
		cmocka_unit_test(enormous_size),
		cmocka_unit_test(size_that_is_no_number),
		cmocka_unit_test(odd_iv_offset),
		cmocka_unit_test(odd_sector_size),
		cmocka_unit_test(clearing_twice_is_harmless),
	};

	return cmocka_run_group_tests(tests, volumes_setup, volumes_teardown);
}
