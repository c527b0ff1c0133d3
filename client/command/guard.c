#include "command/guard.h"

#include <errno.h>
#include <stdio.h>

#include "header/header.h"
#include "header/signature.h"
#include "terminal/overwrite.h"

/* What an endpoint holds as the copy sees it: decrypted, if it has a key. */
static int find_in_volume(struct endpoint *endpoint, uint64_t size, struct signatures *found,
			  struct error *err)
{
	struct header look;
	int ret;

	header_init(&look, endpoint->name);
	look.volume = endpoint->volume;
	look.size = size;
	look.info.struct_size = sizeof(look.info);
	ret = ndio_queue_new(&look.queue);
	if (ret == 0)
		ret = ndio_get_info(look.volume, &look.info);
	if (ret < 0)
		error_set(err, -ret, "%s", ndio_error());
	else
		ret = signatures_find(&look, found, err);
	endpoint->volume = look.volume; /* NULL where a silent server was given up */
	ndio_queue_free(look.queue);
	return ret;
}

/* A plain destination has its own size, and not that which the copy gives it; and that of a pipe isn't
 * open as a volume. */
static int find_in_file(const char *path, struct signatures *found, struct error *err)
{
	struct header look;
	int ret;

	header_init(&look, path);
	ret = header_open(&look, true, err);
	if (ret == 0)
		ret = signatures_find(&look, found, err);
	header_close(&look);
	return ret;
}

static int find_signatures(struct endpoint *endpoint, struct signatures *found, struct error *err)
{
	*found = (struct signatures){ .nr_magic = 0 };
	if (endpoint->created)
		return 0;
	if (endpoint->plain || endpoint->file >= 0)
		return find_in_file(endpoint->name, found, err);
	if (!endpoint->volume || endpoint->size == 0)
		return 0;
	return find_in_volume(endpoint, endpoint->size, found, err);
}

/* Data that nothing recognizes are no reason to ask: every disk that was in use has them, and what
 * lies in a LUKS volume that is new looks like it. */
static bool is_content(const struct signatures *found)
{
	return found->nr_magic > 0;
}

int guard_destination(struct endpoint *source, struct endpoint *destination, bool overwrite,
		      struct error *err)
{
	struct signatures there, coming;
	char what[256];
	int ret = overwrite_check_claims(destination->name, err);

	if (ret < 0 || overwrite)
		return ret;
	ret = find_signatures(destination, &there, err);
	if (ret == 0 && there.unsure && !destination->encrypted)
		snprintf(there.text, sizeof(there.text),
			 "data that can't be recognized below the limit on the size of files");
	else if (ret < 0 || !is_content(&there))
		return ret;
	ret = find_signatures(source, &coming, err);
	if (ret < 0 || (there.luks ? coming.luks : is_content(&coming)))
		return ret;
	snprintf(what, sizeof(what), "%s that %s has nothing in place of%s", there.text,
		 source->name,
		 there.luks && !destination->encrypted ? " (is --dst-key-file forgotten?)" : "");
	return overwrite_ask(destination->name, what, "--overwrite", err);
}
