#include "luks/token-keyring.h"

#include <errno.h>
#include <json-c/json.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "luks/luks-json.h"

#define PAYLOAD_MAX 32767 /* bytes of a key of type "user": user_preparse() of Linux */

static const char *description_of(struct json_object *token)
{
	struct json_object *description = luks_json_member(token, "key_description");

	return json_object_is_type(description, json_type_string) ?
		       json_object_get_string(description) :
		       "";
}

void token_keyring_about(struct json_object *token, char *text, size_t size)
{
	snprintf(text, size, "%s", luks_json_text(luks_json_member(token, "key_description")));
}

/* With the length that it has by now, which may change meanwhile. */
static int keyring_read(long id, struct key *pass, struct error *why)
{
	long len = syscall(SYS_keyctl, KEYCTL_READ, id, NULL, 0L);
	int ret = len < 0 ? -errno : 0;

	if (ret == 0 && len > PAYLOAD_MAX)
		ret = -EFBIG;
	if (ret < 0)
		return error_set(why, -ret, "the key can't be read: %s", strerror(-ret));
	ret = key_make(pass, len + 1, why);
	while (ret == 0 && pass->locked < (size_t)len)
		ret = key_grow(pass, why);
	if (ret < 0)
		return ret;
	if (syscall(SYS_keyctl, KEYCTL_READ, id, pass->data, len) != len)
		return error_set(why, EIO, "the key can't be read");
	pass->len = len;
	return 0;
}

int token_keyring_open(struct json_object *token, struct key *pass, struct error *why)
{
	/* No callout: nobody but the user puts it there. */
	long id = syscall(SYS_request_key, "user", description_of(token), NULL, 0L);

	if (id >= 0)
		return keyring_read(id, pass, why);
	return error_set(why, errno, "no such key in the kernel's keyrings: %s", strerror(errno));
}
