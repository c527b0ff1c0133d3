#include "luks/token-plugin.h"

#include <errno.h>
#include <libcryptsetup.h>
#include <string.h>

/* Whatever else may lie in libcryptsetup's folder: a header doesn't choose what is loaded. */
bool token_plugin_has(const char *type)
{
	return strcmp(type, "systemd-tpm2") == 0 || strcmp(type, "systemd-fido2") == 0 ||
	       strcmp(type, "systemd-pkcs11") == 0;
}

static int no_plugin(const char *type, struct error *why)
{
	return error_set(why, ENOENT,
			 "%s/libcryptsetup-token-%s.so isn't there, or can't be loaded: apt-get "
			 "install systemd-cryptsetup (Debian 12: systemd)",
			 crypt_token_external_path(), type);
}

/* libcryptsetup leaves it at numbers, and a plugin may say more. */
static int tell_failure(const struct luks_memfd *memfd, int error, struct error *why)
{
	switch (error) {
	case -ENOANO:
		return error_set(why, ENOANO, "it needs a PIN");
	case -EAGAIN:
		return error_set(why, EAGAIN,
				 "no such device is here that answers, or no library for it (see "
				 "systemd's libtss2, libfido2)");
	case -EPERM:
		return error_set(why, EPERM, "what it holds opens no key slot of its");
	default:
		return error_set(why, -error, "%s",
				 memfd->log[0] ? memfd->log :
						 "the device doesn't hold it, or lets it go for "
						 "another state of this machine only");
	}
}

int token_plugin_open(struct luks_memfd *memfd, int number, const char *type, const struct key *pin,
		      void *key, size_t key_len, struct error *why)
{
	crypt_token_info status = crypt_token_status(memfd->cd, number, NULL);
	struct crypt_keyslot_context *by_token;
	size_t len = key_len;
	int ret;

	if (status != CRYPT_TOKEN_EXTERNAL)
		return no_plugin(type, why);
	ret = crypt_keyslot_context_init_by_token(memfd->cd, number, type, pin ? pin->data : NULL,
						  pin ? pin->len : 0, NULL, &by_token);
	if (ret < 0)
		return tell_failure(memfd, ret, why);
	memfd->log[0] = '\0';
	ret = crypt_volume_key_get_by_keyslot_context(memfd->cd, CRYPT_ANY_SLOT, key, &len,
						      by_token);
	crypt_keyslot_context_free(by_token);
	if (ret >= 0 && len != key_len)
		ret = -EPERM;
	return ret < 0 ? tell_failure(memfd, ret, why) : ret;
}
