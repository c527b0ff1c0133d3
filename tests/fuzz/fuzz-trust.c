/* Files that tell what disks were: made by a course of events, changed anywhere, opened and used again.
 * And headers that aren't the one that was sealed. */
#include "fuzz.h"
#include "integrity/trust.h"

#define SIZE  (3 << 20)
#define AREAS 200

static uint8_t *file;

static int file_read(void *opaque, uint64_t at, void *bytes, size_t len)
{
	(void)opaque;
	memset(bytes, 0, len);
	if (at < SIZE)
		memcpy(bytes, file + at, at + len < SIZE ? len : SIZE - at);
	return 0;
}

static int file_write(void *opaque, uint64_t at, const void *bytes, size_t len)
{
	(void)opaque;
	if (at > SIZE || len > SIZE - at)
		return -28; /* ENOSPC */
	memcpy(file + at, bytes, len);
	return 0;
}

static int file_sync(void *opaque)
{
	(void)opaque;
	return 0;
}

static void use(struct trust *trust, struct fuzz_input *input)
{
	uint8_t hash[TRUST_HASH] = { 0 }, other[TRUST_HASH] = { 77 };
	uint8_t leaves[30 * TRUST_HASH] = { 0 };
	uint64_t areas = trust_areas(&trust->volume);
	struct error err;
	int ret = 0;

	for (unsigned count = fuzz_take(input, 64); ret == 0 && count > 0; count--) {
		uint64_t area = areas ? fuzz_take(input, AREAS) % areas : 0;

		if (areas == 0)
			break;
		hash[0] = fuzz_take(input, 8) + 1;
		switch (fuzz_take(input, 6)) {
		case 0:
			ret = trust_saw(trust, area, hash, &err);
			fuzz_check(ret < 0 || trust_check(trust, area, hash) == TRUST_SAME);
			break;
		case 1:
			ret = trust_intend(trust, area, hash, &err);
			if (ret == 0)
				ret = trust_wrote(trust, area, hash, &err);
			break;
		case 2:
			ret = trust_sync(trust, &err);
			break;
		case 3:
			ret = trust_checkpoint(trust, &err);
			break;
		case 4:
			ret = trust_intend_leaf(trust, area, fuzz_take(input, 30), other, hash,
						&err);
			break;
		default:
			ret = trust_intend(trust, area, hash, &err);
			break;
		}
	}
	trust_sync(trust, &err);
	if (areas > 0)
		trust_check_leaves(trust, 0, leaves, fuzz_take(input, 30) + 1);
}

static void change(struct fuzz_input *input)
{
	/* Heads, logs and hashes are as likely. */
	static const unsigned starts[] = { 0, 128, 256, 1280, 2304 };
	size_t at = starts[fuzz_take(input, 5)] * 1024 + fuzz_take(input, 16384);

	for (unsigned len = fuzz_take(input, 16); len > 0; len--)
		file[at++] = fuzz_take(input, 256);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct trust_io io = { file_read, file_write, file_sync, NULL, "file" };
	struct trust_volume volume = {
		.uuid = "uuid", .size = AREAS << 20, .area_len = 1 << 20, .block = 4096
	};
	struct fuzz_input input = { data, size };
	struct trust trust;
	struct error err;
	char *text;

	file = calloc(1, SIZE);
	fuzz_check(file && trust_make(&io, &volume, "{\"keyslots\":{}}", &err) == 0);
	fuzz_check(trust_open(&trust, &io, &err) == 0);
	use(&trust, &input);
	trust_destroy(&trust);
	for (unsigned count = fuzz_take(&input, 4); count > 0; count--)
		change(&input);
	if (trust_open(&trust, &io, &err) == 0) {
		use(&trust, &input);
		text = fuzz_string(input.bytes, input.len);
		if (trust_check_header(&trust, text, &err) < 0)
			fuzz_check(strncmp(err.text, "file: the header", 16) == 0);
		free(text);
		trust_destroy(&trust);
	} else {
		fuzz_check(strncmp(err.text, "file: ", 6) == 0);
	}
	free(file);
	return 0;
}
