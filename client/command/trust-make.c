#include "command/trust-make.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy/copy.h"
#include "header/facts.h"
#include "header/header-edit.h"
#include "header/header-lock.h"
#include "header/header-seal.h"
#include "memory/secret.h"
#include "nbd/target-nbd.h"
#include "terminal/deferral.h"
#include "terminal/interrupt.h"
#include "terminal/number.h"
#include "terminal/pin-input.h"
#include "terminal/say.h"

void trust_job_init(struct trust_job *job)
{
	header_init(&job->header, header_place_name(&job->place));
	job->header.answer_timeout = job->place.answer_timeout;
	job->header.no_lock = job->place.no_lock;
	job->header.breaks_seal = job->again;
	job->old = -1;
}

void trust_job_end(struct trust_job *job)
{
	header_close(&job->header);
	trust_file_let_go(&job->old);
	fflush(stdout);
	deferral_end();
}

/* ---- the header ---- */

static int trust_load(struct trust_job *job, struct error *err)
{
	struct header *header = &job->header;
	int ret = header_open(header, false, err);

	if (ret == 0)
		ret = header_run_load(header, &job->place, err);
	if (ret == 0 && header->version != 2)
		ret = error_set(err, ENOTSUP,
				"%s: LUKS1's header can't be sealed (ndio convert makes it LUKS2)",
				header->name);
	return ret;
}

/* What would be found out only when all was read. What isn't a trust file is nobody's to replace. */
static int look_at_file(struct trust_job *job, struct error *err)
{
	struct trusted old;
	struct error why;
	int ret;

	if (!job->path || (access(job->path, F_OK) < 0 && errno == ENOENT && !job->header_only))
		return 0;
	if (!job->again)
		return error_set(err, EEXIST, "%s: it is there already (--again makes it anew)",
				 job->path);
	ret = trusted_open(&old, job->path, true, &why);
	trusted_close(&old, NULL);
	if (ret < 0)
		return error_set(err, -ret, "%s", why.text);
	return job->header_only ? 0 : trust_file_hold(job->path, &job->old, err);
}

int trust_job_look(struct trust_job *job, struct error *err)
{
	int ret = look_at_file(job, err);

	if (ret == 0 && job->header_only)
		ret = header_seal_open(&job->header, job->path, false, err);
	return ret < 0 ? ret : trust_load(job, err);
}

int trust_job_try_key(void *opaque, const struct key *key, struct error *err)
{
	struct trust_job *job = opaque;
	const struct notice listener = { .tell = say_notice };
	const struct luks_tokens tokens = { .number = job->how->token,
					    .wait = job->place.answer_timeout,
					    .pin = pin_input };
	const struct luks_pass pass = {
		.data = key->data,
		.len = key->len,
		.slot = job->how->slot,
		.volume_key = job->how->volume_key,
		.max_kdf_time = job->how->max_kdf_time,
		.notice = &listener,
		.tokens = &tokens,
	};
	struct luks_memfd *memfd = &job->header.memfd;
	size_t len = 0;
	void *volume_key = NULL;
	int ret = key->data ? luks_slots_open(memfd, &pass, NULL, &volume_key, &len, err) :
			      luks_tokens_open(memfd, &pass, NULL, &volume_key, &len, err);

	if (ret < 0)
		return ret;
	ret = header_seal_key(&job->header, volume_key, len, err);
	secret_free(volume_key, len);
	return ret;
}

/* The same as it was when it was opened: what was read, and what is kept, belongs to that. */
static int load_same(struct trust_job *job, const char *text, struct error *err)
{
	int ret;

	header_let_go(&job->header);
	header_forget(&job->header);
	ret = trust_load(job, err);
	if (ret == 0 && strcmp(text, job->header.trusted.text) != 0)
		ret = error_set(err, EBUSY, "%s: its LUKS header changed meanwhile",
				job->header.name);
	return ret;
}

static int write_seal(struct trust_job *job, struct error *err)
{
	char *text = strdup(job->header.trusted.text);
	int lock = -1, ret;

	if (!text)
		return error_set(err, ENOMEM, "%s: no memory", job->header.name);
	ret = header_lock(job->header.name, &lock, err);
	if (ret == 0)
		ret = load_same(job, text, err);
	if (ret == 0)
		ret = header_write_back(&job->header, HEADER_SEALED, NULL, err);
	if (lock >= 0)
		close(lock);
	free(text);
	return ret;
}

/* A disk that can't be written is known by the file alone. */
static bool can_seal(const struct trust_job *job)
{
	return job->header.info.can & NDIO_CAN_WRITE;
}

static bool is_sealed(const struct trust_job *job)
{
	return job->header.trusted.token.good && !job->again;
}

/* ---- the file ---- */

static int read_layout_there(const struct trust_job *job, const struct header_facts *facts,
			     struct layout *layout, struct error *err)
{
	struct header disk;
	int ret;

	header_init(&disk, job->place.locator);
	disk.answer_timeout = job->place.answer_timeout;
	ret = header_open(&disk, true, err);
	if (ret == 0)
		ret = facts_read_layout(&disk, facts, layout, err);
	header_close(&disk);
	return ret;
}

static int describe_disk(struct trust_job *job, struct trust_volume *volume, struct error *err)
{
	struct header *header = &job->header;
	struct header_facts facts;
	struct layout layout;
	int ret = facts_read(header, &facts, err);

	if (ret == 0 && facts.integrity[0])
		ret = job->place.header ? read_layout_there(job, &facts, &layout, err) :
					  facts_read_layout(header, &facts, &layout, err);
	if (ret < 0)
		return ret;
	*volume = trusted_volume(&header->trusted, facts.integrity[0] ? &layout : NULL);
	volume->seals = header->trusted.token.good ? header->trusted.token.count : 0;
	volume->seals += !is_sealed(job) && can_seal(job);
	if (volume->seals == 0)
		volume->seals = 1;
	ret = seal_mac(header->volume_key, header->volume_key_len, volume->uuid, volume->seals,
		       header->trusted.text, volume->mac);
	return ret < 0 ? error_set(err, -ret, "%s: the header's MAC: %s", header->name,
				   strerror(-ret)) :
			 0;
}

static int read_into(const struct trust_job *job, const char *path, struct endpoint *source,
		     struct endpoint *nowhere, struct error *err)
{
	const struct unlock_options how = { .slot = LUKS_ANY_SLOT,
					    .volume_key = true,
					    .trust = path };
	const struct endpoint_spec spec = {
		.locator = job->place.locator,
		.header = job->place.header,
		.how = how,
		.answer_timeout = job->place.answer_timeout,
		.reconnect = NBD_RECONNECT,
		.unlock = true,
	};
	const struct endpoint_spec null = { .locator = "null:" };
	const struct key key = { .data = job->header.volume_key,
				 .len = job->header.volume_key_len };
	const struct copy_options options = {
		.progress.how = isatty(STDERR_FILENO) ? PROGRESS_TEXT : PROGRESS_OFF,
		.request_size = COPY_REQUEST_SIZE,
		.requests = COPY_REQUESTS * COPY_CONNECTIONS,
		.from = { SIZE_UNKNOWN, SIZE_UNKNOWN },
	};
	struct copy_report report;
	unsigned flags = can_seal(job) ? 0 : NDIO_OPEN_READONLY | NDIO_OPEN_LEARN;
	int ret = endpoint_open_with_key(source, &spec, &key, flags, err);

	if (ret == 0)
		ret = endpoint_open_destination(nowhere, &null, source, err);
	if (ret == 0 && interrupt_caught()) /* before the copy looks for signals */
		ret = error_set(err, EINTR, "interrupted");
	return ret < 0 ? ret : copy_run(source, nowhere, &options, &report, err);
}

/* All of it, with the file, which learns what it is. */
static int read_disk(const struct trust_job *job, const char *path, struct error *err)
{
	struct endpoint source = { .fd = -1, .file = -1 }, nowhere = { .fd = -1, .file = -1 };
	int ret = read_into(job, path, &source, &nowhere, err);

	endpoint_close(&source);
	endpoint_close(&nowhere);
	return ret;
}

static int check_whole(const char *path, uint64_t areas, struct error *err)
{
	struct trusted trusted;
	int ret = trusted_open(&trusted, path, true, err);

	if (ret == 0 && trust_known(&trusted.trust) != areas)
		ret = error_set(err, EIO, "%s: of %" PRIu64 " areas only %" PRIu64 " are known",
				path, areas, trust_known(&trusted.trust));
	trusted_close(&trusted, NULL);
	return ret;
}

static void tell_made(const struct trust_job *job, const struct trust_volume *volume)
{
	char size[16];

	if (volume->size)
		printf("%s: knows the header, and %" PRIu64 " areas of %s%s\n", job->path,
		       trust_areas(volume), size_text(volume->area_len, size),
		       job->is_new ? ", when they are written" : "");
	else
		printf("%s: knows the header; data without integrity can't be checked\n",
		       job->path);
}

static int fill_file(struct trust_job *job, const char *path, struct error *err)
{
	struct trust_volume volume;
	int ret = describe_disk(job, &volume, err);

	if (ret == 0)
		ret = trust_file_make(path, &volume, job->header.trusted.text, true, err);
	if (ret == 0 && volume.size && !job->is_new) {
		header_let_go(&job->header); /* a server may let in one client */
		ret = read_disk(job, path, err);
		if (ret == 0)
			ret = check_whole(path, trust_areas(&volume), err);
	}
	if (ret == 0 && can_seal(job) && !is_sealed(job))
		ret = write_seal(job, err);
	if (ret == 0)
		ret = trust_file_rename(path, job->path, job->old, err);
	if (ret == 0)
		tell_made(job, &volume);
	return ret;
}

/* Whatever happens, nothing is left of it but what has its name. */
static int make_file(struct trust_job *job, struct error *err)
{
	char *path;
	int fd, ret;

	if (asprintf(&path, "%s.XXXXXX", job->path) < 0)
		return error_set(err, ENOMEM, "%s: no memory", job->path);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		ret = error_set(err, errno, "%s: %s", job->path, strerror(errno));
		free(path);
		return ret;
	}
	close(fd);
	ret = fill_file(job, path, err);
	if (ret < 0)
		unlink(path);
	free(path);
	return ret;
}

int trust_job_run(struct trust_job *job, struct error *err)
{
	int ret;

	if (job->is_new)
		deferral_begin();
	else
		interrupt_catch(-1);
	if (job->path && !job->header_only)
		return make_file(job, err);
	if (!can_seal(job))
		return error_set(err, EROFS, "%s: it can only be read", job->header.name);
	ret = is_sealed(job) ? 0 : write_seal(job, err);
	if (ret == 0)
		printf("%s: its header is sealed\n", job->header.name);
	return ret;
}
