#include "terminal/key-try.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

#include "terminal/say.h"

#define TRIES 3 /* as cryptsetup */

void key_tell_deriving(void)
{
	static bool told;

	if (!told && isatty(STDERR_FILENO))
		say_error("deriving the key, this takes some seconds");
	told = true;
}

int key_try(const struct key_source *source, const struct unlock_options *how, const char *prompt,
	    struct key *key, key_try_fn *try, void *opaque, struct error *err)
{
	bool asked = !key_source_given(source);
	int ret;

	*key = (struct key){ 0 };
	if (how && how->by_tokens) {
		ret = try(opaque, key, err);
		if (ret != -ENOKEY)
			return ret;
		say_error("%s", err->text);
	}

	for (int left = TRIES - 1;; left--) {
		ret = key_read(source, prompt, false, key, err);
		if (ret < 0)
			return ret;
		if (asked)
			key_tell_deriving();
		ret = try(opaque, key, err);
		if (ret != -EPERM || !asked || left == 0)
			return ret;
		say_error("%s: try again", err->text);
		key_clear(key);
	}
}
