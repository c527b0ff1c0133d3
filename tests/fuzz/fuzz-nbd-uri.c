/* URIs. What is taken makes sense, and says the same again when it is put together anew. */
#include "fuzz.h"
#include "nbd/nbd-uri.h"

#include <stdbool.h>

static bool has_tls_parameters(const struct nbd_uri *uri)
{
	return uri->tls_psk_file || uri->tls_certificates || uri->tls_hostname ||
	       uri->tls_verify_peer || uri->tls_version;
}

static void check(const struct nbd_uri *uri, const char *text)
{
	fuzz_check(strncmp(text, uri->tls ? "nbds" : "nbd", 3 + uri->tls) == 0);
	fuzz_check(uri->tls || text[3] != 's');
	fuzz_check(uri->tls || !has_tls_parameters(uri));
	fuzz_check(uri->export_name);
	fuzz_check(!uri->socket == (uri->transport != NBD_UNIX));
	fuzz_check(!uri->socket || *uri->socket);
	fuzz_check(!uri->host == (uri->transport != NBD_TCP));
	fuzz_check(uri->transport != NBD_TCP || (uri->port > 0 && uri->port <= 65535));
	fuzz_check(!uri->tls_psk_file || !uri->tls_certificates);
	/* Only two words, in their forms, turn the check of the server off. */
	fuzz_check(nbd_uri_verifies(uri) || uri->tls_verify_peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_string(data, size);
	struct error err = { 0 };
	struct nbd_uri uri;
	int ret = nbd_uri_parse(text, &uri, &err);

	fuzz_check(ret == 0 || (ret < 0 && err.text[0]));
	if (ret == 0)
		check(&uri, text);
	nbd_uri_clear(&uri);
	nbd_uri_clear(&uri);
	free(text);
	return 0;
}
