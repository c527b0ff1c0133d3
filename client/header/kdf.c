#include "header/kdf.h"

#include <errno.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <string.h>

#include "terminal/number.h"

/* libcryptsetup's limits, in KiB: each of up to four threads takes 8. */
#define MEMORY_MIN 32
#define MEMORY_MAX (4 << 20)

static bool kdf_is_known(const char *type)
{
	return strcmp(type, CRYPT_KDF_ARGON2ID) == 0 || strcmp(type, CRYPT_KDF_ARGON2I) == 0 ||
	       strcmp(type, CRYPT_KDF_PBKDF2) == 0;
}

static bool read_number(const char *value, uint64_t *number)
{
	return parse_number(value, UINT32_MAX, number) && *number > 0;
}

const char *kdf_option(struct kdf_options *options, int option, const char *value)
{
	switch (option) {
	case KDF_TYPE:
		options->type = value;
		return kdf_is_known(value) ? NULL : "--pbkdf is argon2id, argon2i or pbkdf2";
	case KDF_TIME:
		return read_number(value, &options->time_ms) ?
			       NULL :
			       "--iter-time takes a number of milliseconds";
	case KDF_ITERATIONS:
		return read_number(value, &options->iterations) ?
			       NULL :
			       "--pbkdf-force-iterations takes a number";
	default:
		return read_number(value, &options->memory_kib) &&
				       options->memory_kib >= MEMORY_MIN &&
				       options->memory_kib <= MEMORY_MAX ?
			       NULL :
			       "--pbkdf-memory takes a number of KiB, from 32 to 4194304";
	}
}

bool kdf_given(const struct kdf_options *options)
{
	return options->type || options->time_ms || options->iterations || options->memory_kib;
}

const char *kdf_check(const struct kdf_options *options)
{
	if (options->time_ms && options->iterations)
		return "--iter-time is of no use beside --pbkdf-force-iterations";
	if (options->memory_kib && options->type && strcmp(options->type, CRYPT_KDF_PBKDF2) == 0)
		return "--pbkdf-memory is for argon2: pbkdf2 takes none";
	return NULL;
}

/* libcryptsetup's own words are of parameters that nobody has given. */
static int kdf_check_luks1(const struct kdf_options *options, const struct header *header,
			   struct error *err)
{
	if (options->type && strcmp(options->type, CRYPT_KDF_PBKDF2) != 0)
		return error_set(err, ENOTSUP,
				 "%s: the key derivation: LUKS1 has pbkdf2 only, and "
				 "not %s, which needs LUKS2",
				 header->name, options->type);
	if (options->memory_kib)
		return error_set(err, ENOTSUP,
				 "%s: the key derivation: LUKS1 has pbkdf2 only, which "
				 "takes no memory",
				 header->name);
	return 0;
}

int kdf_apply(const struct kdf_options *options, struct header *header, const char *type,
	      struct error *err)
{
	const struct crypt_pbkdf_type *usual = crypt_get_pbkdf_default(type);
	struct crypt_pbkdf_type pbkdf = { 0 };
	int ret;

	if (!usual || !kdf_given(options))
		return 0;
	if (strcmp(type, CRYPT_LUKS1) == 0 && kdf_check_luks1(options, header, err) < 0)
		return -ENOTSUP;
	pbkdf.type = options->type ? options->type : usual->type;
	pbkdf.hash = usual->hash;
	pbkdf.time_ms = options->time_ms ? options->time_ms : usual->time_ms;
	if (strcmp(pbkdf.type, CRYPT_KDF_PBKDF2) != 0) {
		pbkdf.max_memory_kb =
			options->memory_kib ? options->memory_kib : usual->max_memory_kb;
		pbkdf.parallel_threads = usual->parallel_threads;
	}
	if (options->iterations) {
		pbkdf.iterations = options->iterations;
		pbkdf.time_ms = 0;
		pbkdf.flags = CRYPT_PBKDF_NO_BENCHMARK;
	}
	ret = crypt_set_pbkdf_type(header->memfd.cd, &pbkdf);
	if (ret < 0)
		return error_set(err, -ret, "%s: the key derivation: %s", header->name,
				 luks_memfd_reason(&header->memfd, ret));
	return 0;
}
