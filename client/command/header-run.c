#include "command/header-run.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "command/cmd.h"
#include "header/header-lock.h"
#include "locator/locator.h"
#include "terminal/deferral.h"

const char *header_place_name(const struct header_place *place)
{
	return place->header ? place->header : place->locator;
}

static int run_in_place(struct header *header, const struct header_place *place, header_run_fn *run,
			void *opaque, struct error *err)
{
	int ret = header_open(header, !place->writes, err);

	if (ret == 0 && place->writes && !(header->info.can & NDIO_CAN_WRITE))
		ret = error_set(err, EROFS, "%s: it can only be read", header->name);
	return ret < 0 ? ret : run(header, opaque, err);
}

int header_run(const struct header_place *place, header_run_fn *run, void *opaque)
{
	struct header header;
	struct error err = { 0 };
	int lock = -1, ret;

	header_init(&header, header_place_name(place));
	header.answer_timeout = place->answer_timeout;
	header.no_lock = place->no_lock;
	ret = locator_kind(header.name, &err);
	if (ret >= 0 && place->writes)
		ret = header_lock(header.name, &lock, &err);
	if (ret >= 0)
		ret = run_in_place(&header, place, run, opaque, &err);
	header_close(&header);
	if (lock >= 0)
		close(lock);
	if (ret < 0)
		cmd_error("%s", err.text);
	fflush(stdout);
	deferral_end();
	return ret < 0 ? CMD_FAILED : CMD_OK;
}

int header_run_load(struct header *header, const struct header_place *place, struct error *err)
{
	int ret = header_load(header, err);

	if (ret == 0 && place->writes && !place->header && header->data_elsewhere)
		ret = error_set(err, EINVAL,
				"%s: this is a detached LUKS header: its data are "
				"elsewhere: give it with --header, and the disk that has them",
				header->name);
	return ret < 0 ? ret : header_load_areas(header, err);
}
