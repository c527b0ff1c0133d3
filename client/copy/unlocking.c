#include "copy/unlocking.h"

#include <errno.h>
#include <string.h>

#include "terminal/pin-input.h"

static ssize_t give_pin(void *opaque, const char *token, const char *why, void *pin, size_t size)
{
	struct key key = { 0 };
	struct error err;
	ssize_t n;

	error_set(&err, EPERM, "%s", why);
	n = pin_input(opaque, token, &key, &err);
	if (n == 0)
		n = key.len > size ? -EFBIG : (ssize_t)key.len;
	if (n > 0)
		memcpy(pin, key.data, n);
	key_clear(&key);
	return n;
}

void unlocking_set(const struct unlock_options *how, const struct key *key,
		   struct ndio_options *options)
{
	options->key = key->data;
	options->key_len = key->len;
	options->key_slot = how->slot;
	options->max_kdf_time = how->max_kdf_time;
	options->trust = how->trust;
	if (unlock_by_one_slot(how))
		options->flags |= NDIO_OPEN_KEY_SLOT;
	if (key->data && how->volume_key)
		options->flags |= NDIO_OPEN_VOLUME_KEY;
	if (key->data)
		return;
	options->flags |= how->token == LUKS_ANY_TOKEN ? NDIO_OPEN_TOKENS : NDIO_OPEN_ONE_TOKEN;
	options->token = how->token;
	options->pin = give_pin;
}
