#include "tls/tls-error.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#define BY_US EACCES /* what nobody is to be trusted for, on either side */

/* ---- their certificate ---- */

static int explain_certificate(const struct tls_context *context, long result, struct error *err)
{
	const char *name = tls_context_name(context);

	switch (result) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return error_set(err, BY_US, "the server's certificate, or one of its authorities', "
				 "has expired");
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return error_set(err, BY_US, "the server's certificate, or one of its authorities', "
				 "isn't valid yet (is the clock right?)");
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		return error_set(err, BY_US, "the server's certificate is self-signed, and isn't in "
				 "ca-cert.pem");
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return error_set(err, BY_US, "the server's certificate is signed by no authority that "
				 "is trusted here (ca-cert.pem)");
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return error_set(err, BY_US, "the server's certificate is not for \"%s\"", name);
	case X509_V_ERR_INVALID_PURPOSE:
	case X509_V_ERR_INVALID_CA:
		return error_set(err, BY_US, "the server's certificate has the wrong purpose: it "
				 "isn't for a server, or its authority's isn't for an authority");
	case X509_V_ERR_CERT_REVOKED:
		return error_set(err, BY_US, "the server's certificate has been revoked "
				 "(ca-crl.pem)");
	case X509_V_ERR_CRL_HAS_EXPIRED:
	case X509_V_ERR_CRL_NOT_YET_VALID:
	case X509_V_ERR_UNABLE_TO_GET_CRL:
		return error_set(err, BY_US, "ca-crl.pem can't tell whether the server's certificate "
				 "is revoked: %s", X509_verify_cert_error_string(result));
	default:
		return error_set(err, BY_US, "the server's certificate: %s",
				 X509_verify_cert_error_string(result));
	}
}

/* ---- what the server says ---- */

static int wrong_key(const struct tls_context *context, struct error *err)
{
	return error_set(err, BY_US, "the server doesn't take the key of \"%s\": the user or the key "
			 "is wrong, or it has only certificates (tls-certificates=FOLDER)",
			 tls_context_user(context));
}

/* Who has such a key shows no certificate: most servers that do know no keys at all. */
static int shows_certificate(const struct tls_context *context, struct error *err)
{
	return error_set(err, BY_US, "the server doesn't take the key of \"%s\", but shows a "
			 "certificate: it wants tls-certificates=FOLDER in the URI, in place of "
			 "tls-psk-file, or doesn't know that user", tls_context_user(context));
}

static int too_old(const struct tls_context *context, struct error *err)
{
	bool can_be_older = strcmp(tls_context_version(context), "1.3") == 0;

	return error_set(err, EPROTO, "the server has no TLS %s%s", tls_context_version(context),
			 can_be_older ? " (tls-version=1.2 in the URI takes an older one)" : "");
}

/* What the server doesn't take once the handshake is over, can't be our key. */
static int explain_late_alert(int alert, struct error *err)
{
	if (alert == SSL_AD_BAD_RECORD_MAC || alert == SSL_AD_DECRYPT_ERROR)
		return error_set(err, EPROTO, "what we sent to the server was changed on its way");
	return error_set(err, EPROTO, "the server ends the connection: %s",
			 SSL_alert_desc_string_long(alert));
}

static int explain_alert(const struct tls_context *context, const struct tls_failure *failure,
			 int alert, struct error *err)
{
	const char *text = SSL_alert_desc_string_long(alert);

	switch (alert) {
	case SSL_AD_PROTOCOL_VERSION:
		return too_old(context, err);
	case SSL_AD_HANDSHAKE_FAILURE:
	case SSL_AD_INSUFFICIENT_SECURITY:
	case SSL_AD_UNKNOWN_PSK_IDENTITY:
	case SSL_AD_DECRYPT_ERROR:
	case SSL_AD_ILLEGAL_PARAMETER:
	case SSL_AD_BAD_RECORD_MAC:
	case SSL_AD_MISSING_EXTENSION:
		if (failure->up)
			return explain_late_alert(alert, err);
		if (tls_context_user(context))
			return wrong_key(context, err);
		return error_set(err, EPROTO, "the server ends the handshake: %s (does it want a "
				 "pre-shared key, tls-psk-file=FILE?)", text);
	case SSL_AD_CERTIFICATE_REQUIRED:
		return error_set(err, BY_US, "the server wants a certificate of ours: client-cert.pem "
				 "and client-key.pem");
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
		return error_set(err, BY_US, "the server doesn't take our certificate, "
				 "client-cert.pem: %s", text);
	default:
		return explain_late_alert(alert, err);
	}
}

/* ---- what we say ---- */

static const char *reason_text(unsigned long code)
{
	const char *text = ERR_reason_error_string(code);

	return text ? text : "OpenSSL doesn't say why";
}

static int explain_reason(const struct tls_context *context, const struct tls_failure *failure,
			  int reason, struct error *err)
{
	switch (reason) {
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_UNKNOWN_SSL_VERSION:
		return too_old(context, err);
	case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
	case SSL_R_BAD_RECORD_TYPE:
		return error_set(err, EPROTO, failure->up ?
				 "what the server sent was changed on its way, or isn't from it" :
				 "the handshake was changed on its way");
	case SSL_R_DIGEST_CHECK_FAILED:
	case SSL_R_BAD_SIGNATURE:
		return error_set(err, EPROTO, "the handshake was changed on its way");
	case SSL_R_NO_RENEGOTIATION:
	case SSL_R_TOO_MANY_KEY_UPDATES:
		return error_set(err, EPROTO, "the server wants what TLS forbids or we refuse: %s",
				 reason_text(ERR_peek_last_error()));
	default:
		return error_set(err, EPROTO, "%s makes no sense as TLS: %s",
				 failure->up ? "what the server sent" : "the server's handshake",
				 reason_text(ERR_peek_error()));
	}
}

/* With TLS 1.3 the server looks at our certificate when the handshake is over for us, and some say
 * nothing when they don't like it. */
static bool may_be_our_certificate(const struct tls_failure *failure)
{
	return failure->up && failure->asked && !failure->heard &&
	       (failure->ended || failure->io_error);
}

static int explain_our_certificate(SSL *ssl, struct error *err)
{
	if (!SSL_get_certificate(ssl))
		return error_set(err, BY_US, "the server closed the connection: it wants a "
				 "certificate of ours, client-cert.pem and client-key.pem");
	return error_set(err, BY_US, "the server closed the connection: perhaps it doesn't take our "
			 "certificate, client-cert.pem");
}

static int explain_end(const struct tls_context *context, const struct tls_failure *failure,
		       struct error *err)
{
	if (failure->cut)
		return error_set(err, EPROTO, "the stream was cut short in the middle of a record");
	if (failure->up)
		return error_set(err, EPROTO, "the stream ended without TLS's close_notify: it may "
				 "have been cut short");
	if (tls_context_user(context))
		return error_set(err, BY_US, "the server closed the connection during the handshake: "
				 "is the user, \"%s\", or the key wrong?", tls_context_user(context));
	return error_set(err, EPROTO, "the server closed the connection during the handshake (does it "
			 "want a pre-shared key, tls-psk-file=FILE?)");
}

int tls_explain(const struct tls_context *context, SSL *ssl, const struct tls_failure *failure,
		struct error *err)
{
	unsigned long first = ERR_peek_error();
	int reason = ERR_GET_LIB(first) == ERR_LIB_SSL ? ERR_GET_REASON(first) : 0;
	long result = SSL_get_verify_result(ssl);
	int ret;

	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && tls_context_user(context))
		ret = shows_certificate(context, err);
	else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
		ret = explain_certificate(context, result, err);
	else if (failure->again)
		ret = error_set(err, EPROTO, "the server asked for a renegotiation, which is refused");
	else if (may_be_our_certificate(failure))
		ret = explain_our_certificate(ssl, err);
	else if (failure->ended)
		ret = explain_end(context, failure, err);
	else if (failure->io_error)
		ret = error_set(err, failure->io_error, "the connection broke: %s",
				strerror(failure->io_error));
	else if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
		ret = explain_alert(context, failure, reason - SSL_AD_REASON_OFFSET, err);
	else
		ret = explain_reason(context, failure, reason, err);
	ERR_clear_error();
	return ret;
}
