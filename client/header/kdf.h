/* kdf: the options of format and key that say how a new key slot derives its key. */
#ifndef NDIO_KDF_H
#define NDIO_KDF_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "header/header.h"

/* What isn't given is 0 or NULL, and as cryptsetup chooses. */
struct kdf_options {
	const char *type;    /* "argon2id", "argon2i", "pbkdf2" */
	uint64_t time_ms;    /* to spend: iterations are found by a benchmark */
	uint64_t iterations; /* or so many, without one */
	uint64_t memory_kib;
};

/* For a table of struct option; their values are from 256 up. */
enum { KDF_TYPE = 256, KDF_TIME, KDF_ITERATIONS, KDF_MEMORY, KDF_END };
#define KDF_LONG_OPTIONS                                                                           \
	{ "pbkdf", required_argument, NULL, KDF_TYPE },                                            \
		{ "iter-time", required_argument, NULL, KDF_TIME },                                \
		{ "pbkdf-force-iterations", required_argument, NULL, KDF_ITERATIONS },             \
	{                                                                                          \
		"pbkdf-memory", required_argument, NULL, KDF_MEMORY                                \
	}

/* Their lines in --help. */
#define KDF_HELP                                                                                   \
	"  --pbkdf TYPE       key derivation: argon2id, argon2i or pbkdf2\n"                       \
	"  --iter-time MS     let it take about so many milliseconds on this machine\n"            \
	"  --pbkdf-force-iterations N\n"                                                           \
	"                     or so many iterations, without measuring\n"                          \
	"  --pbkdf-memory KIB memory that it may take at the most (argon2 only)\n"

/* Takes an option's value. NULL, or what is wrong with it. */
const char *kdf_option(struct kdf_options *options, int option, const char *value);

/* Was any of them given? */
bool kdf_given(const struct kdf_options *options);

/* When all were taken: NULL, or what is wrong with them together. */
const char *kdf_check(const struct kdf_options *options);

/* Tells libcryptsetup. type is CRYPT_LUKS1 or CRYPT_LUKS2. */
int kdf_apply(const struct kdf_options *options, struct header *header, const char *type,
	      struct error *err);

#endif
