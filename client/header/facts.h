/* facts: what a LUKS header says without a key, as text that is fit for a terminal. */
#ifndef NDIO_FACTS_H
#define NDIO_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "header/header.h"
#include "integrity/layout.h"
#include "luks/luks-tokens.h"

#define FACTS_SLOTS  32
#define FACTS_TOKENS 32

struct slot_facts {
	int number;
	bool unbound;         /* it holds another key than the volume's, which it never opens */
	const char *priority; /* "normal", "prefer", "ignore" */
	char pbkdf[32];       /* "argon2id" */
	char hash[32];        /* of pbkdf2, else "" */
	uint32_t iterations;  /* argon2's time cost */
	uint32_t memory_kib;  /* 0 for pbkdf2 */
	uint32_t threads;     /* 0 for pbkdf2 */
};

/* How a key may come without a passphrase: from a security key, a TPM, a keyring, ... */
struct token_facts {
	int number;
	char type[48];                /* "systemd-fido2" */
	uint32_t slots;               /* a bit for each key slot that it is assigned to */
	char about[LUKS_TOKEN_ABOUT]; /* "tang http://host", or "" */
};

/* Every text is printable ASCII: a header is hostile. */
struct header_facts {
	unsigned version;
	const char *damaged_copy; /* LUKS2: "first" or "second" of the header's, or "" */
	char uuid[48], label[64], cipher[64];
	unsigned key_bits;    /* 0 where no key slot tells */
	unsigned sector;      /* bytes */
	uint64_t data_offset; /* bytes */
	uint64_t data_size;   /* bytes; 0: up to the end of the device */
	char integrity[64];   /* or "" */
	unsigned tag_size;    /* bytes a sector; 0: that superblock can't be read */
	uint32_t journal_sections;
	char requirements[256]; /* names with spaces between them, or "" */
	char flags[256];        /* likewise */
	bool data_elsewhere;    /* a detached header */
	struct slot_facts slots[FACTS_SLOTS];
	unsigned nr_slots;
	struct token_facts tokens[FACTS_TOKENS];
	unsigned nr_tokens;
	uint32_t memory_kib; /* needed to unlock: what the hungriest key slot takes */
};

int facts_read(struct header *header, struct header_facts *facts, struct error *err);

/* Where a disk with integrity has what: disk is open, and the header's or, if that is detached, another. 0,
 * or a negative errno with a message. */
int facts_read_layout(struct header *disk, const struct header_facts *facts, struct layout *layout,
		      struct error *err);

/* Print the key slots, or the tokens, as a table, each line behind indent. */
void facts_print_slots(const struct header_facts *facts, const char *indent);
void facts_print_tokens(const struct header_facts *facts, const char *indent);

#endif
