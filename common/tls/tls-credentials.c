#include "tls/tls-credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/key-file.h"
#include "memory/secret.h"

struct path {
	char text[4096];
};

static const char *in_folder(const char *folder, const char *name, struct path *path)
{
	/* A longer one can't be opened anyway. */
	snprintf(path->text, sizeof(path->text), "%.4000s/%s", folder, name);
	return path->text;
}

/* Also when it is a link that leads nowhere, or can't be looked at: to read it then fails. */
static bool is_in_folder(const char *folder, const char *name)
{
	struct stat st;
	struct path path;

	return lstat(in_folder(folder, name, &path), &st) == 0 ||
	       (errno != ENOENT && errno != ENOTDIR);
}

/* What OpenSSL says of a file: that it can't be opened, or isn't what it should be. */
static int unreadable(const char *path, const char *what, struct error *err)
{
	unsigned long first = ERR_peek_error();

	if (ERR_GET_LIB(first) == ERR_LIB_SYS)
		return error_set(err, ERR_GET_REASON(first), "%s: %s", path,
				 strerror(ERR_GET_REASON(first)));
	return error_set(err, EINVAL, "%s: not %s in PEM", path, what);
}

/* ---- whom we trust ---- */

/* What is in the file is trusted as it is, also an authority in the middle or the server's own
 * certificate, without whoever signed it: so GnuTLS takes such files. All else is checked as ever. */
static int load_authorities(SSL_CTX *ctx, const char *folder, struct error *err)
{
	struct path path;

	if (!folder)
		return SSL_CTX_set_default_verify_paths(ctx) ?
			       0 :
			       error_set(err, ENOENT, "the machine has no certificate authorities");
	if (!SSL_CTX_load_verify_file(ctx, in_folder(folder, "ca-cert.pem", &path)))
		return unreadable(path.text, "a certificate", err);
	X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

/* An authority that is trusted, and that another has signed, needs no list of that one, which may not
 * even be known. */
static int pass_trusted(int ok, X509_STORE_CTX *store)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(store);
	int depth = X509_STORE_CTX_get_error_depth(store);

	if (ok || X509_STORE_CTX_get_error(store) != X509_V_ERR_UNABLE_TO_GET_CRL || depth == 0 ||
	    depth != sk_X509_num(chain) - 1 ||
	    (X509_get_extension_flags(sk_X509_value(chain, depth)) & EXFLAG_SS))
		return ok;
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

/* With a list of revoked certificates, each authority in the chain must have one there. */
static int load_revoked(SSL_CTX *ctx, const char *folder, struct error *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	struct path path;

	in_folder(folder, "ca-crl.pem", &path);
	if (!lookup)
		return error_set(err, ENOMEM, "%s: no memory", path.text);
	if (X509_load_crl_file(lookup, path.text, X509_FILETYPE_PEM) <= 0)
		return unreadable(path.text, "a list of revoked certificates", err);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, pass_trusted);
	return 0;
}

/* ---- who we are ---- */

/* OpenSSL would ask at the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *opaque)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)opaque;
	return -1;
}

static int read_private_key(SSL_CTX *ctx, int fd, const char *path, const char *who,
			    struct error *err)
{
	BIO *bio = BIO_new_fd(fd, BIO_NOCLOSE);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	int reason = ERR_GET_REASON(ERR_peek_last_error());
	int ret = 0;

	if (!key &&
	    (reason == PEM_R_BAD_PASSWORD_READ || reason == PEM_R_PROBLEMS_GETTING_PASSWORD))
		ret = error_set(err, EACCES, "%s: it has a passphrase, which can't be asked for",
				path);
	else if (!key)
		ret = unreadable(path, "a private key", err);
	else if (SSL_CTX_use_PrivateKey(ctx, key) <= 0)
		ret = error_set(err, EINVAL, "%s: not the key of %s-cert.pem", path, who);
	EVP_PKEY_free(key);
	BIO_free(bio);
	return ret;
}

static int load_key(SSL_CTX *ctx, const char *path, const char *who, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	secret_no_dumps();
	ret = read_private_key(ctx, fd, path, who, err);
	if (ret == 0) /* not before: what is no key may have any mode */
		ret = key_file_check(fd, path, err);
	close(fd);
	return ret;
}

/* who: "client" or "server", which names its files. */
static int load_own(SSL_CTX *ctx, const char *folder, const char *who, struct error *err)
{
	char certificate[32], key[32];
	struct path path;

	snprintf(certificate, sizeof(certificate), "%s-cert.pem", who);
	snprintf(key, sizeof(key), "%s-key.pem", who);
	if (SSL_CTX_use_certificate_chain_file(ctx, in_folder(folder, certificate, &path)) <= 0)
		return unreadable(path.text, "a certificate that can be used", err);
	return load_key(ctx, in_folder(folder, key, &path), who, err);
}

/* Whom we believe. */
static int load_trust(SSL_CTX *ctx, const char *folder, struct error *err)
{
	int ret = load_authorities(ctx, folder, err);

	return ret == 0 && folder && is_in_folder(folder, "ca-crl.pem") ?
		       load_revoked(ctx, folder, err) :
		       ret;
}

/* ---- where they are ---- */

static const char *default_folder(struct path *path)
{
	static const char *const in_home[] = { ".pki/libnbd", ".config/pki/libnbd" };
	const char *home = getenv("HOME");

	if (geteuid() == 0 || !home)
		return is_in_folder("/etc/pki/libnbd", "ca-cert.pem") ? "/etc/pki/libnbd" : NULL;
	for (size_t i = 0; i < sizeof(in_home) / sizeof(in_home[0]); i++)
		if (is_in_folder(in_folder(home, in_home[i], path), "ca-cert.pem"))
			return path->text;
	return NULL;
}

int tls_credentials_load(SSL_CTX *ctx, const char *folder, bool verify, struct error *err)
{
	struct path path;
	int ret = 0;

	if (!folder)
		folder = default_folder(&path);
	SSL_CTX_set_verify(ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (verify)
		ret = load_trust(ctx, folder, err);
	if (ret == 0 && folder &&
	    (is_in_folder(folder, "client-cert.pem") || is_in_folder(folder, "client-key.pem")))
		ret = load_own(ctx, folder, "client", err);
	return ret;
}

int tls_credentials_load_server(SSL_CTX *ctx, const char *folder, bool verify, struct error *err)
{
	int ret = load_own(ctx, folder, "server", err);

	if (ret == 0 && verify)
		ret = load_trust(ctx, folder, err);
	/* load_revoked() has set a callback. */
	SSL_CTX_set_verify(
		ctx, verify ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE,
		SSL_CTX_get_verify_callback(ctx));
	return ret;
}
