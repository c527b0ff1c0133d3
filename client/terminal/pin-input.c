#include "terminal/pin-input.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/key-file.h"
#include "terminal/key-input.h"
#include "terminal/say.h"

#define TRIES 3 /* a security key takes no more than eight, and is locked then */

/* Those that systemd-cryptsetup knows as well. */
static const struct {
	const char *type, *credential;
} credentials[] = {
	{ "(systemd-tpm2)", "cryptsetup.tpm2-pin" },
	{ "(systemd-fido2)", "cryptsetup.fido2-pin" },
	{ "(systemd-pkcs11)", "cryptsetup.pkcs11-pin" },
};

/* Is there one for this token? */
static bool read_credential(const char *token, struct key *key)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY"), *name = NULL;
	const struct key_part all = { .size = 0 };
	char path[PATH_MAX];
	struct error err;
	bool readable;

	for (size_t i = 0; i < sizeof(credentials) / sizeof(credentials[0]); i++)
		if (strstr(token, credentials[i].type))
			name = credentials[i].credential;
	if (!folder || !name || snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return false;
	return key_file_load(path, path, &all, &readable, key, &err) == 0;
}

static int ask_user(const char *token, bool agents, bool is_new, struct key *pin, struct error *err)
{
	struct key_source source = KEY_SOURCE_NONE;
	char prompt[512];
	int ret;

	source.agents = agents;
	snprintf(prompt, sizeof(prompt), "%sPIN for %s", is_new ? "New " : "", token);
	ret = key_read(&source, prompt, is_new, pin, err);
	if (ret == 0 && pin->len == 0)
		ret = error_set(err, ENODATA, "no PIN was given");
	return ret;
}

int pin_input(void *opaque, const char *token, struct key *pin, struct error *err)
{
	static int tries;

	(void)opaque;
	tries = err->text[0] ? tries + 1 : 0;
	if (tries == TRIES)
		return -EPERM;
	if (tries > 0)
		say_error("%s: %s", token, err->text);
	/* One that was wrong isn't read again. */
	if (tries == 0 && read_credential(token, pin))
		return 0;
	key_clear(pin);
	return ask_user(token, true, false, pin, err);
}

int pin_input_first(const char *token, bool is_new, struct key *pin, struct error *err)
{
	return read_credential(token, pin) ? 0 : ask_user(token, false, is_new, pin, err);
}
