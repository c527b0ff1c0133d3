#include "attach/clash.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach/attachment.h"
#include "locator/locator.h"
#include "locator/same.h"
#include "nbd/nbd-uri.h"

static bool attached_to(unsigned index, char *locator, size_t size)
{
	struct attachment attachment;
	struct attachment_facts facts = { 0 };
	bool known = kernel_device_attached(index) &&
		     attachment_init(&attachment, index, NULL) == 0 &&
		     attachment_load(&attachment, &facts, NULL) == 0 &&
		     snprintf(locator, size, "%s", facts.locator) < (int)size;

	attachment_facts_clear(&facts);
	return known;
}

static int clash_refuse_part(const char *written, const struct same_part *part, const char *what,
			     struct error *err)
{
	static const struct same_view view = { .attached = attached_to };

	if (!same_bytes(&view, &(struct same_part){ .locator = written }, part))
		return 0;
	return error_set(err, EINVAL,
			 "%s and %s: the same, or one is on the other: %s would be "
			 "overwritten",
			 part->locator, written, what);
}

/* ---- what a URI needs ---- */

static int refuse_certificates(const char *written, const char *folder, struct error *err)
{
	static const char *const files[] = { "ca-cert.pem", "client-cert.pem", "client-key.pem",
					     "ca-crl.pem" };
	char path[PATH_MAX];
	int ret = 0;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && ret == 0; i++)
		if (snprintf(path, sizeof(path), "%s/%s", folder, files[i]) < (int)sizeof(path) &&
		    access(path, F_OK) == 0)
			ret = clash_refuse_part(written, &(struct same_part){ .locator = path },
						"what a server's URI needs", err);
	return ret;
}

static int refuse_secrets(const char *written, const char *text, struct error *err)
{
	struct nbd_uri uri;
	int ret = 0;

	if (nbd_uri_parse(text, &uri, NULL) == 0) {
		if (uri.tls_psk_file)
			ret = clash_refuse_part(written,
						&(struct same_part){ .locator = uri.tls_psk_file },
						"the pre-shared keys", err);
		if (ret == 0 && uri.tls_certificates)
			ret = refuse_certificates(written, uri.tls_certificates, err);
	}
	nbd_uri_clear(&uri);
	return ret;
}

/* ---- all of it ---- */

int clash_refuse(const char *written, const char *read, const char *what, struct error *err)
{
	int ret = clash_refuse_part(written, &(struct same_part){ .locator = read }, what, err);

	return ret == 0 && read && locator_is_uri(read) ? refuse_secrets(written, read, err) : ret;
}

int clash_refuse_key(const char *written, const struct key_source *key, struct error *err)
{
	char path[32];
	struct same_part part = { .locator = key->file,
				  .offset = key->part.offset,
				  .size = key->part.size };

	if (key->fd >= 0 || (key->file && strcmp(key->file, "-") == 0)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d",
			 key->fd >= 0 ? key->fd : STDIN_FILENO);
		part = (struct same_part){ .locator = path }; /* from where it stands */
	}
	return clash_refuse_part(written, &part, "the key file", err);
}

int clash_refuse_header(const char *disk, const char *header, struct error *err)
{
	int ret = clash_refuse(disk, header, "the LUKS header", err);

	return ret == 0 && header ? clash_refuse(header, disk, "the disk", err) : ret;
}
