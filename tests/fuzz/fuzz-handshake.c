/* What a server may send for a TLS handshake. OpenSSL looks at it, and then we at what OpenSSL
 * thinks of it. The first byte chooses who we are. No input may get through: it has no key. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "fuzz.h"
#include "tls/tls.h"

#define NR_CONTEXTS 4

static struct tls_context *contexts[NR_CONTEXTS];

static void make_key_file(char *path)
{
	static const char line[] = "alice:00112233445566778899aabbccddeeff\n";
	int fd = mkstemp(path);

	fuzz_check(fd >= 0 && write(fd, line, sizeof(line) - 1) == (ssize_t)sizeof(line) - 1);
	close(fd);
}

static void make_contexts(void)
{
	char path[] = "/tmp/fuzz-handshake-XXXXXX";
	const struct tls_options options[NR_CONTEXTS] = {
		{ .psk_file = path, .user = "alice", .name = "localhost" },
		{ .psk_file = path, .user = "alice", .name = "localhost", .old = true },
		{ .name = "localhost", .verify = true },
		{ .name = "localhost", .old = true },
	};
	struct error err = { 0 };

	make_key_file(path);
	for (int i = 0; i < NR_CONTEXTS; i++)
		if (tls_context_make(&options[i], &contexts[i], &err) < 0) {
			fprintf(stderr, "%s\n", err.text);
			abort();
		}
	unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = { 0 };
	struct tls *tls = NULL;
	int pair[2], ret;

	if (!contexts[0])
		make_contexts();
	if (size < 1)
		return 0;
	fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	fuzz_check(write(pair[1], data + 1, size - 1) == (ssize_t)size - 1);
	shutdown(pair[1], SHUT_WR);
	ret = tls_open(contexts[data[0] % NR_CONTEXTS], pair[0],
		       &(struct deadline){ .at = clock_ms() + 5000 }, &tls, &err);
	if (ret >= 0 || ret == -ETIMEDOUT || !err.text[0] || strstr(err.text, "(null)")) {
		fprintf(stderr, "%d: %s\n", ret, err.text);
		abort();
	}
	close(pair[1]);
	return 0;
}
