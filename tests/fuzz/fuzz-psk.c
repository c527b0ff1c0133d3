/* Files of pre-shared keys: the first line is the user, the rest the file. */
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "tls/psk.h"

static int file_of(const uint8_t *bytes, size_t len)
{
	int fd = memfd_create("keys", MFD_CLOEXEC);

	fuzz_check(fd >= 0);
	fuzz_check(write(fd, bytes, len) == (ssize_t)len);
	fuzz_check(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static int hex_digit(int c)
{
	int lower = c | 32;

	if (c >= '0' && c <= '9')
		return c - '0';
	return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Does the file have this line, USER:KEY? */
static bool has_line(const uint8_t *file, size_t len, const struct psk *psk)
{
	size_t user_len = strlen(psk->user), line_len = user_len + 1 + 2 * psk->key_len;

	for (size_t at = 0; at + line_len <= len; at++) {
		const uint8_t *hex = file + at + user_len + 1;
		bool same = at == 0 || file[at - 1] == '\n';

		same = same && memcmp(file + at, psk->user, user_len) == 0 && hex[-1] == ':';
		for (size_t i = 0; same && i < psk->key_len; i++)
			same = hex_digit(hex[2 * i]) >= 0 &&
			       hex_digit(hex[2 * i]) << 4 == (psk->key[i] & 0xf0) &&
			       hex_digit(hex[2 * i + 1]) == (psk->key[i] & 0xf);
		if (same)
			return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = memchr(data, '\n', size);
	size_t user_len = newline ? newline - data : 0;
	const uint8_t *file = newline ? newline + 1 : data;
	size_t len = data + size - file;
	struct error err = { 0 };
	struct psk psk;
	char *user;
	int fd, ret;

	if (memchr(data, '\0', user_len))
		return 0;
	user = fuzz_string(data, user_len);
	fd = file_of(file, len);
	ret = psk_read(fd, "keys", user, &psk, &err);
	fuzz_check(ret == 0 || (ret < 0 && err.text[0]));
	if (ret == 0) {
		fuzz_check(psk.key_len >= PSK_KEY_MIN && psk.key_len <= PSK_KEY_MAX);
		fuzz_check(has_line(file, len, &psk));
	}
	psk_clear(&psk);
	close(fd);
	free(user);
	return 0;
}
