/* tls-error: OpenSSL knows why by a number: the result of looking at a certificate, an alert that
 * the server sent, or a reason of its own. What each means to the user is in tables. What OpenSSL
 * has no number for, such as a stream that ends, is told by the connection's state before that. */
#include "tls/tls-error.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#define BY_US EACCES /* what nobody is to be trusted for, on either side */

/* One of them, and what decides with it. */
struct code {
	const struct tls_parties *parties;
	bool shaking; /* hands, still */
	int number;
	const char *words; /* OpenSSL's, for it */
};

/* What is said of some codes. */
struct row {
	int codes[8]; /* up to a 0; none: all others */
	int errnum;
	int (*say)(const struct code *code, const struct row *row, struct error *err);
	const char *text; /* that it begins with */
};

static bool is_about(const struct row *row, int number)
{
	const int *each = row->codes;

	while (*each && *each != number)
		each++;
	return *each || each == row->codes;
}

static int explain_by(const struct row *table, const struct code *code, struct error *err)
{
	while (!is_about(table, code->number))
		table++;
	return table->say(code, table, err);
}

static int alone(const struct code *code, const struct row *row, struct error *err)
{
	(void)code;
	return error_set(err, row->errnum, "%s", row->text);
}

static int because(const struct code *code, const struct row *row, struct error *err)
{
	return error_set(err, row->errnum, "%s: %s", row->text, code->words);
}

static int too_old(const struct code *code, const struct row *row, struct error *err)
{
	const char *version = code->parties->version;

	return error_set(err, EPROTO, "%s %s%s", row->text, version,
			 strcmp(version, "1.3") == 0 ?
				 " (tls-version=1.2 in the URI takes an older one)" :
				 "");
}

/* ---- their certificate ---- */

static int not_for_name(const struct code *code, const struct row *row, struct error *err)
{
	return error_set(err, BY_US, "%s \"%s\"", row->text, code->parties->name);
}

static const struct row certificates[] = {
	{ { X509_V_ERR_CERT_HAS_EXPIRED },
	  BY_US,
	  alone,
	  "the server's certificate, or one of its authorities', has expired" },
	{ { X509_V_ERR_CERT_NOT_YET_VALID },
	  BY_US,
	  alone,
	  "the server's certificate, or one of its "
	  "authorities', isn't valid yet (is the clock right?)" },
	{ { X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT },
	  BY_US,
	  alone,
	  "the server's certificate is self-signed, and isn't in ca-cert.pem" },
	{ { X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
	    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
	    X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE },
	  BY_US,
	  alone,
	  "the server's certificate is signed by no authority that is trusted here "
	  "(ca-cert.pem)" },
	{ { X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH },
	  BY_US,
	  not_for_name,
	  "the server's certificate is not for" },
	{ { X509_V_ERR_INVALID_PURPOSE, X509_V_ERR_INVALID_CA },
	  BY_US,
	  alone,
	  "the server's certificate "
	  "has the wrong purpose: it isn't for a server, or its authority's isn't for an authority" },
	{ { X509_V_ERR_CERT_REVOKED },
	  BY_US,
	  alone,
	  "the server's certificate has been revoked (ca-crl.pem)" },
	{ { X509_V_ERR_CRL_HAS_EXPIRED, X509_V_ERR_CRL_NOT_YET_VALID,
	    X509_V_ERR_UNABLE_TO_GET_CRL },
	  BY_US,
	  because,
	  "ca-crl.pem can't tell whether the server's certificate is revoked" },
	{ { 0 }, BY_US, because, "the server's certificate" },
};

/* ---- what the server says ---- */

/* Once the handshake is over it can't be our key that the server doesn't take. */
static int no_agreement(const struct code *code, const struct row *row, struct error *err)
{
	const char *user = code->parties->user;

	if (!code->shaking)
		return because(code, row, err);
	if (user)
		return error_set(err, BY_US,
				 "the server doesn't take the key of \"%s\": the user or "
				 "the key is wrong, or it has only certificates "
				 "(tls-certificates=FOLDER)",
				 user);
	return error_set(err, EPROTO,
			 "the server ends the handshake: %s (does it want a pre-shared "
			 "key, tls-psk-file=FILE?)",
			 code->words);
}

static int not_understood(const struct code *code, const struct row *row, struct error *err)
{
	return (code->shaking ? no_agreement : alone)(code, row, err);
}

static const struct row alerts[] = {
	{ { SSL_AD_PROTOCOL_VERSION }, EPROTO, too_old, "the server has no TLS" },
	{ { SSL_AD_HANDSHAKE_FAILURE, SSL_AD_INSUFFICIENT_SECURITY, SSL_AD_UNKNOWN_PSK_IDENTITY,
	    SSL_AD_ILLEGAL_PARAMETER, SSL_AD_MISSING_EXTENSION },
	  EPROTO,
	  no_agreement,
	  "the server ends the connection" },
	{ { SSL_AD_DECRYPT_ERROR, SSL_AD_BAD_RECORD_MAC },
	  EPROTO,
	  not_understood,
	  "what we sent to the server was changed on its way" },
	{ { SSL_AD_CERTIFICATE_REQUIRED },
	  BY_US,
	  alone,
	  "the server wants a certificate of ours: client-cert.pem and client-key.pem" },
	{ { SSL_AD_BAD_CERTIFICATE, SSL_AD_UNSUPPORTED_CERTIFICATE, SSL_AD_CERTIFICATE_REVOKED,
	    SSL_AD_CERTIFICATE_EXPIRED, SSL_AD_CERTIFICATE_UNKNOWN, SSL_AD_UNKNOWN_CA,
	    SSL_AD_ACCESS_DENIED },
	  BY_US,
	  because,
	  "the server doesn't take our certificate, client-cert.pem" },
	{ { 0 }, EPROTO, because, "the server ends the connection" },
};

/* ---- what we say ---- */

static int changed(const struct code *code, const struct row *row, struct error *err)
{
	return error_set(err, EPROTO, "%s",
			 code->shaking ?
				 row->text :
				 "what the server sent was changed on its way, or isn't from it");
}

static int no_sense(const struct code *code, const struct row *row, struct error *err)
{
	return error_set(err, EPROTO, "%s %s: %s",
			 code->shaking ? "the server's handshake" : "what the server sent",
			 row->text, code->words);
}

static const struct row reasons[] = {
	{ { SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_WRONG_SSL_VERSION, SSL_R_VERSION_TOO_LOW,
	    SSL_R_UNKNOWN_SSL_VERSION },
	  EPROTO,
	  too_old,
	  "the server has no TLS" },
	{ { SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, SSL_R_BAD_RECORD_TYPE },
	  EPROTO,
	  changed,
	  "the handshake was changed on its way" },
	{ { SSL_R_DIGEST_CHECK_FAILED, SSL_R_BAD_SIGNATURE },
	  EPROTO,
	  alone,
	  "the handshake was changed on its way" },
	{ { SSL_R_NO_RENEGOTIATION, SSL_R_TOO_MANY_KEY_UPDATES },
	  EPROTO,
	  because,
	  "the server wants what TLS forbids or we refuse" },
	{ { 0 }, EPROTO, no_sense, "makes no sense as TLS" },
};

/* ---- what there is no code for ---- */

/* Who has such a key shows no certificate: most servers that do know no keys at all. */
static int shows_certificate(const char *user, struct error *err)
{
	return error_set(err, BY_US,
			 "the server doesn't take the key of \"%s\", but shows a "
			 "certificate: it wants tls-certificates=FOLDER in the URI, in place of "
			 "tls-psk-file, or doesn't know that user",
			 user);
}

/* With TLS 1.3 the server looks at our certificate when the handshake is over for us, and some say
 * nothing when they don't like it. */
static int dislikes_certificate(SSL *ssl, struct error *err)
{
	if (!SSL_get_certificate(ssl))
		return error_set(err, BY_US,
				 "the server closed the connection: it wants a "
				 "certificate of ours, client-cert.pem and client-key.pem");
	return error_set(err, BY_US,
			 "the server closed the connection: perhaps it doesn't take our "
			 "certificate, client-cert.pem");
}

static int stream_ended(const char *user, bool shaking, SSL *ssl, struct error *err)
{
	if (SSL_has_pending(ssl))
		return error_set(err, EPROTO, "the stream was cut short in the middle of a record");
	if (!shaking)
		return error_set(err, EPROTO,
				 "the stream ended without TLS's close_notify: it may "
				 "have been cut short");
	if (user)
		return error_set(err, BY_US,
				 "the server closed the connection during the handshake: "
				 "is the user, \"%s\", or the key wrong?",
				 user);
	return error_set(err, EPROTO,
			 "the server closed the connection during the handshake (does it "
			 "want a pre-shared key, tls-psk-file=FILE?)");
}

static int explain_first(struct code *code, const struct tls_state *state, SSL *ssl,
			 struct error *err)
{
	unsigned long first = ERR_peek_error();
	int reason = ERR_GET_LIB(first) == ERR_LIB_SSL ? ERR_GET_REASON(first) : 0;
	const char *user = code->parties->user;
	const char *words = ERR_reason_error_string(first);

	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		code->number = SSL_get_verify_result(ssl);
		code->words = X509_verify_cert_error_string(code->number);
		return user ? shows_certificate(user, err) : explain_by(certificates, code, err);
	}
	if (state->asked == TLS_ASKED_RENEGOTIATION)
		return error_set(err, EPROTO,
				 "the server asked for a renegotiation, which is refused");
	if (state->phase == TLS_UNPROVEN && state->asked == TLS_ASKED_CERTIFICATE && state->end)
		return dislikes_certificate(ssl, err);
	if (state->end == TLS_END_OF_STREAM)
		return stream_ended(user, code->shaking, ssl, err);
	if (state->end)
		return error_set(err, state->end, "the connection broke: %s", strerror(state->end));
	if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
		code->number = reason - SSL_AD_REASON_OFFSET;
		code->words = SSL_alert_desc_string_long(code->number);
		return explain_by(alerts, code, err);
	}
	code->number = reason;
	code->words = words ? words : "OpenSSL doesn't say why";
	return explain_by(reasons, code, err);
}

int tls_explain(const struct tls_context *context, SSL *ssl, const struct tls_state *state,
		struct error *err)
{
	struct code code = { tls_context_parties(context), state->phase == TLS_SHAKING, 0, NULL };
	int ret = explain_first(&code, state, ssl, err);

	ERR_clear_error();
	return ret;
}
