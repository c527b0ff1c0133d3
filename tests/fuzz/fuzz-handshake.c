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

static void make_context(struct tls_context **context, const char *text)
{
	struct error err = { 0 };
	struct nbd_uri uri;

	fuzz_check(nbd_uri_parse(text, &uri, &err) == 0);
	if (tls_context_make(&uri, context, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	nbd_uri_clear(&uri);
}

static void make_contexts(void)
{
	char path[] = "/tmp/fuzz-handshake-XXXXXX", text[200];

	make_key_file(path);
	snprintf(text, sizeof(text), "nbds://alice@localhost/?tls-psk-file=%s", path);
	make_context(&contexts[0], text);
	snprintf(text, sizeof(text), "nbds://alice@localhost/?tls-version=1.2&tls-psk-file=%s", path);
	make_context(&contexts[1], text);
	make_context(&contexts[2], "nbds://localhost/");
	make_context(&contexts[3], "nbds://localhost/?tls-verify-peer=no&tls-version=1.2");
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
		       &(struct nbd_deadline){ .at = clock_ms() + 5000 }, &tls, &err);
	if (ret >= 0 || ret == -ETIMEDOUT || !err.text[0] || strstr(err.text, "(null)")) {
		fprintf(stderr, "%d: %s\n", ret, err.text);
		abort();
	}
	close(pair[1]);
	return 0;
}
