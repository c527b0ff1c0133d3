/* cmd-format: ndio format. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach/clash.h"
#include "base/align.h"
#include "command/cmd.h"
#include "command/open-options.h"
#include "command/trust-make.h"
#include "command/wipe.h"
#include "header/header-edit.h"
#include "header/header-integrity.h"
#include "header/header-lock.h"
#include "header/header.h"
#include "header/kdf.h"
#include "header/signature.h"
#include "integrity/tagged-cipher.h"
#include "locator/locator.h"
#include "terminal/deferral.h"
#include "terminal/key-input.h"
#include "terminal/key-try.h"
#include "terminal/number.h"
#include "terminal/overwrite.h"

#define READ_BACK (UINT64_C(16) << 20) /* at the most, of a new header when it is opened */
#define ROOM      (UINT64_C(64) << 20) /* more than any new header takes */
#define ROOM_LUKS2                                                                                 \
	(UINT64_C(16) << 20) /* what it takes; with less libcryptsetup makes it smaller */
#define ROOM_LUKS1     (UINT64_C(2) << 20)
#define DEFAULT_SECTOR 4096
#define CIPHER         "aes-xts-plain64"
#define XTS_KEY_BITS   512
#define KEY_BITS       256
#define LUKS1_HASH     "sha256"

const char help_format[] =
	"Usage: ndio format [OPTION...] LOCATOR\n"
	"Make an encrypted volume: put a LUKS header on a file, a block device or an NBD export.\n"
	"What was there is lost.\n"
	"\n"
	"  --key-file FILE    the key that will open it: every byte of FILE; - is standard input\n" OPEN_HELP_KEY_PART
	"  --size SIZE        create the file, of so many bytes (K, KiB: 1024; KB: 1000; M, G, T)\n"
	"  --payload-size SIZE\n"
	"                     create it, as long as it takes for a disk of so many bytes\n"
	"  --like LOCATOR     the same, for a disk as large as this image, device or export\n"
	"  --type TYPE        luks2 (the default) or luks1\n"
	"  --cipher CIPHER    aes-xts-plain64 (the default), aes-cbc-essiv:sha256, aes-cbc-plain64\n"
	"                     or aes-cbc-plain, as old disks have it\n"
	"  --key-size BITS    of the volume key; 512 for XTS (two keys of 256), else 256\n"
	"  --sector-size N    bytes encrypted as one: 512 to 4096 (luks2 only); 4096 where it fits\n"
	"  --integrity KIND   each sector gets a tag, and one that was changed can't be read: aead,\n"
	"                     hmac-sha256, hmac-sha512 or poly1305 (luks2 only)\n"
	"  --integrity-no-journal\n"
	"                     whoever opens it writes without the journal\n"
	"  --integrity-no-wipe\n"
	"                     don't write it full of zeroes: what was never written can't be read\n"
	"  --trust FILE       seal the header, and make the file that finds out another one, and with\n"
	"                     integrity an older disk: see ndio trust (luks2 only)\n"
	"  --label LABEL      a name for it (luks2 only)\n"
	"  --uuid UUID        its UUID, instead of a random one\n"
	"  --header PATH      put the header there; LOCATOR is for the data alone\n" OPEN_HELP_ANSWER_TIMEOUT
		KDF_HELP
	"  -q, --yes          don't ask before something that looks used is destroyed\n"
	"  -h, --help         show this\n"
	"\n"
	"Without a key option the passphrase is asked for at the terminal, twice.\n"
	"See ndio-format(1).\n";

enum {
	OPT_SIZE = KDF_END,
	OPT_PAYLOAD_SIZE,
	OPT_LIKE,
	OPT_TYPE,
	OPT_CIPHER,
	OPT_KEY_SIZE,
	OPT_SECTOR_SIZE,
	OPT_INTEGRITY,
	OPT_NO_JOURNAL,
	OPT_NO_WIPE,
	OPT_LABEL,
	OPT_UUID
};

/* What the command line asks for. */
struct request {
	const char *locator;
	const char *header; /* detached, or NULL */
	const char *type;   /* CRYPT_LUKS1 or CRYPT_LUKS2 */
	const char *cipher, *label, *uuid;
	uint64_t key_bits;                      /* or 0 */
	uint64_t sector;                        /* bytes; 0: as large as fits */
	const struct integrity_kind *integrity; /* or NULL */
	bool no_journal, no_wipe;
	uint64_t size;    /* bytes of the file to be created, or 0; or else: */
	uint64_t payload; /* bytes of the disk in that file, or 0; or else: */
	const char *like; /* what it is as large as, or NULL: the file is there */
	bool yes;
	unsigned answer_timeout; /* seconds, or 0 */
	struct kdf_options kdf;
	struct key_source key_source;
	struct unlock_options how; /* of it --trust alone */
};

/* What --integrity takes, how the header has it, and the usual cipher. */
static const struct integrity_kind {
	const char *name, *type, *cipher;
} integrity_kinds[] = {
	{ "aead", "aead", "aes-gcm-random" },
	{ "hmac-sha256", "hmac(sha256)", "aes-xts-plain64" },
	{ "hmac-sha512", "hmac(sha512)", "aes-xts-plain64" },
	{ "poly1305", "poly1305", "chacha20-random" },
};

/* Its cipher as tagged-cipher.h and cipher.h name it. */
static const char *whole_cipher(const struct request *request, char text[64])
{
	snprintf(text, 64, "%s%s%s", request->cipher, request->integrity ? " " : "",
		 request->integrity ? request->integrity->type : "");
	return text;
}

/* ---- files to be created ---- */

static bool makes_file(const struct request *request)
{
	return request->size || request->payload || request->like;
}

/* That it isn't there is found out before a passphrase is asked for; the file appears only
 * when all else is ready. */
static int check_absent(const char *path, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) == 0)
		return error_set(err, EEXIST, "%s: it exists already", path);
	if (errno != ENOENT)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int create_file(const char *path, uint64_t size, struct error *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int ret = 0;

	if (fd < 0)
		return error_set(err, errno, "%s: creating it: %s", path, strerror(errno));
	if (ftruncate(fd, size) < 0) {
		ret = error_set(err, errno, "%s: making it %" PRIu64 " bytes long: %s", path, size,
				strerror(errno));
		unlink(path);
	}
	close(fd);
	return ret;
}

/* ---- what is there now ---- */

static int check_existing(struct header *header, const struct request *request,
			  struct signatures *found, struct error *err)
{
	int ret;

	if (!(header->info.can & NDIO_CAN_WRITE))
		return error_set(err, EROFS, "%s: it can only be read", header->name);
	ret = overwrite_check_claims(header->name, err);
	if (ret == 0)
		ret = signatures_find(header, found, err);
	if (ret == 0 && found->text[0] && !request->yes)
		ret = overwrite_ask(header->name, found->text, "--yes", err);
	return ret;
}

/* ---- the new header, in its memfd ---- */

static bool is_luks2(const struct request *request)
{
	return strcmp(request->type, CRYPT_LUKS2) == 0;
}

static unsigned choose_sector(const struct request *request, uint64_t data_size)
{
	if (request->sector)
		return request->sector;
	if (!is_luks2(request))
		return HEADER_UNIT;
	return is_aligned(data_size, DEFAULT_SECTOR) ? DEFAULT_SECTOR : HEADER_UNIT;
}

static unsigned choose_key_bits(const struct request *request)
{
	char text[64];

	if (request->key_bits)
		return request->key_bits;
	if (request->integrity)
		return tagged_key_len(whole_cipher(request, text)) * 8;
	return strstr(request->cipher, "-xts-") ? XTS_KEY_BITS : KEY_BITS;
}

static int format_device(struct header *header, const struct request *request, unsigned sector,
			 const char *data_device, struct error *err)
{
	struct crypt_params_luks1 luks1 = { .hash = LUKS1_HASH, .data_device = data_device };
	struct crypt_params_luks2 luks2 = { .sector_size = sector,
					    .label = request->label,
					    .data_device = data_device };
	/* Of one with integrity it is a header for a key that nobody has: see header_add_integrity(). */
	const char *name = request->integrity ? CIPHER : request->cipher;
	unsigned key_bits = request->integrity ? XTS_KEY_BITS : choose_key_bits(request);
	const char *dash = strchr(name, '-');
	char cipher[32];
	int ret;

	snprintf(cipher, sizeof(cipher), "%.*s", (int)(dash - name), name);
	ret = crypt_format(header->memfd.cd, request->type, cipher, dash + 1, request->uuid, NULL,
			   key_bits / 8, is_luks2(request) ? (void *)&luks2 : (void *)&luks1);
	if (ret < 0)
		return error_set(err, -ret, "%s: making the LUKS header: %s", header->name,
				 luks_memfd_reason(&header->memfd, ret));
	return header_measure(header, err);
}

/* A second memfd stands for the data's device when the header is detached; one sector of it, since
 * its size isn't in the header. */
static int format_detached(struct header *header, const struct request *request, unsigned sector,
			   struct error *err)
{
	char path[32];
	int fd = memfd_create("ndio-data", MFD_CLOEXEC);
	int ret;

	if (fd < 0 || ftruncate(fd, sector) < 0) {
		ret = error_set(err, errno, "%s: %s", request->locator, strerror(errno));
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ret = format_device(header, request, sector, path, err);
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

/* There has to be one sector for the data, and dm-crypt wants whole ones. */
static int check_size(const struct header *header, const struct request *request, unsigned sector,
		      uint64_t data_size, struct error *err)
{
	uint64_t offset = crypt_get_data_offset(header->memfd.cd) * HEADER_UNIT;
	char text[16];

	if (request->sector > HEADER_UNIT && !is_aligned(data_size, request->sector))
		return error_set(err, EINVAL,
				 "%s: its size, %" PRIu64 " bytes, is no multiple of "
				 "--sector-size %u",
				 request->locator, data_size, sector);
	if (data_size >= offset + sector)
		return 0;
	return error_set(err, ENOSPC,
			 "%s: too small: it has %" PRIu64 " bytes, and a %s volume "
			 "needs at least %" PRIu64 " (%s and one sector)",
			 request->locator, data_size, is_luks2(request) ? "LUKS2" : "LUKS1",
			 offset + sector, size_text(offset, text));
}

/* How much of the beginning the new header owns: all before the data, or its own length. */
static uint64_t header_end(const struct header *header, const struct request *request)
{
	uint64_t offset = crypt_get_data_offset(header->memfd.cd) * HEADER_UNIT;

	return request->header || offset < header->len ? header->len : offset;
}

/* The memfd has room for any new header, or what a limit leaves: how large the disk is doesn't matter
 * here. All before the data is written from it, with what libcryptsetup left empty. */
static int make_header(struct header *header, const struct request *request, unsigned sector,
		       struct error *err)
{
	int ret = luks_memfd_make(&header->memfd, ROOM, err);

	if (ret == 0)
		ret = luks_memfd_check_room(&header->memfd,
					    is_luks2(request) ? ROOM_LUKS2 : ROOM_LUKS1, err);
	if (ret == 0)
		ret = kdf_apply(&request->kdf, header, request->type, err);
	if (ret < 0)
		return ret;
	ret = request->header ? format_detached(header, request, sector, err) :
				format_device(header, request, sector, NULL, err);
	if (ret == 0)
		ret = luks_memfd_check_room(&header->memfd, header_end(header, request), err);
	return ret;
}

static int format_add_key(struct header *header, const struct request *request, struct key *key,
			  struct error *err)
{
	char prompt[256];
	int ret;

	snprintf(prompt, sizeof(prompt), "New passphrase for %s", request->locator);
	ret = key_read(&request->key_source, prompt, true, key, err);
	if (ret < 0)
		return ret;
	key_tell_deriving();
	if (request->integrity)
		ret = crypt_keyslot_add_by_key(header->memfd.cd, 0, NULL,
					       choose_key_bits(request) / 8, key->data, key->len,
					       CRYPT_VOLUME_KEY_NO_SEGMENT);
	else
		ret = crypt_keyslot_add_by_volume_key(header->memfd.cd, 0, NULL, 0, key->data,
						      key->len);
	if (ret < 0)
		return error_set(err, -ret, "%s: filling a key slot: %s", header->name,
				 luks_memfd_reason(&header->memfd, ret));
	return 0;
}

/* ---- where it goes ---- */

static struct header_integrity integrity_of(const struct request *request, unsigned sector)
{
	char text[64];

	return (struct header_integrity){
		.cipher = request->cipher,
		.type = request->integrity->type,
		.sector = sector,
		.tag_size = tagged_tag_len(whole_cipher(request, text)),
		.no_journal = request->no_journal,
	};
}

/* One run of the command. */
struct job {
	const struct request *request;
	struct header header;
	bool header_is_new;      /* its file has to be created */
	uint64_t payload;        /* bytes that the data will have, if that was asked for */
	uint64_t data_size;      /* of what will hold the data */
	unsigned sector;         /* bytes */
	struct signatures found; /* where the header goes, if that is there already */
	struct key key;          /* that will open it */
};

static int write_header(struct job *job, struct error *err)
{
	const struct header_proof proof = { .key = &job->key, .slot = 0 };
	struct header *header = &job->header;
	uint64_t end = header_end(header, job->request);

	if (end > header->size)
		return error_set(err, ENOSPC,
				 "%s: too small for the LUKS header: it has %" PRIu64
				 " bytes, and %" PRIu64 " are needed",
				 header->name, header->size, end);
	return header_write_new(header, end, job->found.magic, job->found.nr_magic, &proof, err);
}

/* A signal doesn't leave a file that isn't finished; and SIGKILL none of its full length. */
static int write_new(struct job *job, struct error *err)
{
	const struct request *request = job->request;
	struct header *header = &job->header;
	uint64_t size = request->header ? header->len : job->data_size;
	uint64_t first = header_end(header, request);
	int ret;

	deferral_begin();
	if (first < READ_BACK)
		first = READ_BACK;
	ret = create_file(header->name, min_u64(first, size), err);
	if (ret < 0)
		return ret;
	header->file_size = size;
	ret = header_open(header, false, err);
	if (ret == 0)
		ret = write_header(job, err);
	if (ret == 0 && truncate(header->name, size) < 0)
		ret = error_set(err, errno, "%s: making it %" PRIu64 " bytes long: %s",
				header->name, size, strerror(errno));
	if (ret < 0)
		unlink(header->name);
	return ret;
}

/* ---- all of it ---- */

static int measure(const struct job *job, const char *locator, uint64_t *size, struct error *err)
{
	struct header data;
	int ret;

	header_init(&data, locator);
	data.answer_timeout = job->request->answer_timeout;
	ret = header_open(&data, true, err);
	*size = data.size;
	header_close(&data);
	return ret;
}

/* Before one of them is made as a file, or anything is asked. */
static int check_format_names(const struct request *request, struct error *err)
{
	int ret = locator_kind(request->locator, err);

	if (ret >= 0 && request->header)
		ret = locator_check_path(request->header, "a LUKS header", err);
	if (ret >= 0)
		ret = clash_refuse_header(request->locator, request->header, err);
	if (ret == 0)
		ret = clash_refuse_key(request->locator, &request->key_source, err);
	if (ret == 0 && request->header)
		ret = clash_refuse_key(request->header, &request->key_source, err);
	return ret;
}

/* How large the data's file will be; with a header in it, as if that were the largest: make() knows
 * better. A disk has whole sectors. */
static int plan_file(struct job *job, struct error *err)
{
	const struct request *request = job->request;
	int ret = check_absent(request->locator, err);

	if (ret == 0 && request->like)
		ret = measure(job, request->like, &job->payload, err);
	if (ret < 0)
		return ret;
	if (request->like && job->payload == 0)
		return error_set(err, EINVAL, "%s: it is empty", request->like);
	if (request->payload)
		job->payload = request->payload;
	if (job->payload > INT64_MAX - ROOM - DEFAULT_SECTOR)
		return error_set(err, EFBIG, "%s: no file can be so large", request->locator);
	job->payload = round_up(job->payload, request->sector ? request->sector : HEADER_UNIT);
	if (request->size)
		job->data_size = request->size;
	else
		job->data_size = job->payload + (request->header ? 0 : ROOM);
	return 0;
}

/* Looks at what is there, and asks whether it may go. */
static int look_at_disk(struct job *job, struct error *err)
{
	const struct request *request = job->request;
	int ret = check_format_names(request, err);

	if (ret == 0 && request->how.trust)
		ret = check_absent(request->how.trust, err);
	if (ret < 0)
		return ret;
	if (makes_file(request))
		ret = plan_file(job, err);
	else if (request->header)
		ret = measure(job, request->locator, &job->data_size, err);
	if (ret < 0 || job->header_is_new)
		return ret;
	ret = header_open(&job->header, false, err);
	if (ret == 0 && !request->header)
		job->data_size = job->header.size;
	if (ret == 0)
		ret = header_lock_check(job->header.name, err); /* before a passphrase is typed */
	return ret < 0 ? ret : check_existing(&job->header, request, &job->found, err);
}

/* Now it is known where the data begin. */
static int make(struct job *job, struct error *err)
{
	const struct request *request = job->request;
	struct header *header = &job->header;
	unsigned sector = choose_sector(request, job->data_size);
	int ret = make_header(header, request, sector, err);

	job->sector = sector;
	if (ret < 0)
		return ret;
	if (job->payload && !request->header)
		job->data_size =
			crypt_get_data_offset(header->memfd.cd) * HEADER_UNIT + job->payload;
	return check_size(header, request, sector, job->data_size, err);
}

/* What integrity has in front of the data. */
static int write_integrity(struct job *job, struct error *err)
{
	const struct header_integrity integrity = integrity_of(job->request, job->sector);
	uint64_t start = crypt_get_data_offset(job->header.memfd.cd) * HEADER_UNIT;

	return header_write_integrity(&job->header, &integrity, start, err);
}

/* With a detached header the data's file, too, is created by --size. */
static int write_locked(struct job *job, struct error *err)
{
	const struct request *request = job->request;
	bool new_data = request->header && makes_file(request);
	int ret = 0;

	if (new_data) {
		deferral_begin();
		ret = create_file(request->locator, job->data_size, err);
	}
	if (ret < 0)
		return ret;
	ret = job->header_is_new ? write_new(job, err) : write_header(job, err);
	if (ret == 0 && request->integrity)
		ret = write_integrity(job, err);
	if (ret < 0 && new_data)
		unlink(request->locator);
	return ret;
}

/* A file that is still to be made is nobody else's. */
static int format_locked(struct job *job, struct error *err)
{
	int lock = -1;
	int ret = job->header_is_new ? 0 : header_lock(job->header.name, &lock, err);

	if (ret == 0)
		ret = write_locked(job, err);
	if (lock >= 0)
		close(lock);
	return ret;
}

static bool header_exists(const char *locator)
{
	struct stat st;

	return locator_is_uri(locator) || lstat(locator, &st) == 0;
}

/* Nothing of it is to be read first: what is written is known. */
static int seal_new_disk(const struct request *request, const struct key *key, struct error *err)
{
	struct trust_job job = {
		.place = { .locator = request->locator,
			   .header = request->header,
			   .answer_timeout = request->answer_timeout,
			   .writes = true },
		.path = request->how.trust,
		.how = &request->how,
		.is_new = true,
	};
	struct error why;
	int ret;

	trust_job_init(&job);
	ret = trust_job_look(&job, &why);
	if (ret == 0)
		ret = trust_job_try_key(&job, key, &why);
	if (ret == 0)
		ret = trust_job_run(&job, &why);
	trust_job_end(&job);
	return ret < 0 ? error_set(err, -ret, "%s (it is formatted, but not sealed: ndio trust)",
				   why.text) :
			 0;
}

static int format_disk(const struct request *request)
{
	struct job job = {
		.request = request,
		.header_is_new =
			request->header ? !header_exists(request->header) : makes_file(request),
	};
	struct error err = { 0 };
	int ret;

	header_init(&job.header, request->header ? request->header : request->locator);
	job.header.answer_timeout = request->answer_timeout;
	ret = look_at_disk(&job, &err);
	if (ret == 0)
		ret = make(&job, &err);
	if (ret == 0)
		ret = format_add_key(&job.header, request, &job.key, &err);
	if (ret == 0 && request->integrity) {
		const struct header_integrity integrity = integrity_of(request, job.sector);

		ret = header_add_integrity(&job.header, &integrity, &err);
	}
	if (ret == 0)
		ret = format_locked(&job, &err);
	header_close(&job.header);
	if (ret == 0 && request->how.trust)
		ret = seal_new_disk(request, &job.key, &err);
	if (ret == 0 && request->integrity && !request->no_wipe) {
		deferral_end();
		ret = wipe_volume(request->locator, &job.key, request->how.trust,
				  request->answer_timeout, &err);
	}
	key_clear(&job.key);
	if (ret < 0)
		cmd_error("%s", err.text);
	deferral_end();
	return ret < 0 ? CMD_FAILED : CMD_OK;
}

/* ---- the command line ---- */

static const char *take_type(struct request *request, const char *value)
{
	if (strcmp(value, "luks2") == 0)
		request->type = CRYPT_LUKS2;
	else if (strcmp(value, "luks1") == 0)
		request->type = CRYPT_LUKS1;
	else
		return "--type is luks2 or luks1";
	return NULL;
}

static const char *take_sector_size(struct request *request, const char *value)
{
	if (!parse_number(value, DEFAULT_SECTOR, &request->sector) ||
	    request->sector < HEADER_UNIT || !is_aligned(request->sector, request->sector))
		return "--sector-size is 512, 1024, 2048 or 4096";
	return NULL;
}

static const char *take_integrity(struct request *request, const char *value)
{
	for (size_t i = 0; i < sizeof(integrity_kinds) / sizeof(integrity_kinds[0]); i++)
		if (strcmp(integrity_kinds[i].name, value) == 0) {
			request->integrity = &integrity_kinds[i];
			return NULL;
		}
	return "--integrity is aead, hmac-sha256, hmac-sha512 or poly1305";
}

/* NULL, or what is wrong. */
static const char *format_option(void *opaque, int option, const char *value)
{
	struct request *request = opaque;
	const struct open_options open = {
		.key = &request->key_source,
		.how = &request->how,
		.header = &request->header,
		.answer_timeout = &request->answer_timeout,
		.twice = "the key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_SIZE:
		return parse_size(value, &request->size) && request->size ?
			       NULL :
			       "--size takes bytes, or a number with K, M, G or T";
	case OPT_PAYLOAD_SIZE:
		return parse_size(value, &request->payload) && request->payload ?
			       NULL :
			       "--payload-size takes bytes, or a number with K, M, G or T";
	case OPT_LIKE:
		request->like = value;
		return NULL;
	case OPT_TYPE:
		return take_type(request, value);
	case OPT_KEY_SIZE:
		return parse_number(value, 512, &request->key_bits) && request->key_bits &&
				       request->key_bits % 8 == 0 ?
			       NULL :
			       "--key-size takes bits, 128 to 512";
	case OPT_SECTOR_SIZE:
		return take_sector_size(request, value);
	case OPT_INTEGRITY:
		return take_integrity(request, value);
	case OPT_NO_JOURNAL:
		request->no_journal = true;
		return NULL;
	case OPT_NO_WIPE:
		request->no_wipe = true;
		return NULL;
	case OPT_CIPHER:
		request->cipher = value;
		return NULL;
	case OPT_LABEL:
		request->label = value;
		return NULL;
	case OPT_UUID:
		request->uuid = value;
		return NULL;
	case 'q':
		request->yes = true;
		return NULL;
	default:
		return option < KDF_END ? kdf_option(&request->kdf, option, value) :
					  open_option(&open, option, value);
	}
}

static const char *check_integrity(const struct request *request)
{
	if (!request->integrity)
		return request->no_journal || request->no_wipe ?
			       "--integrity-no-journal and --integrity-no-wipe go with --integrity" :
			       NULL;
	if (!is_luks2(request))
		return "LUKS1 has no integrity";
	if (request->header)
		return "--integrity takes no --header: its tags lie with the data";
	if (request->payload || request->like)
		return "--integrity takes --size: tags and journal take room, too";
	return request->key_bits ? "--integrity says how long the key is" : NULL;
}

/* A volume that ndio couldn't open is not made. err holds what is wrong with the cipher. */
static const char *check_format(const struct request *request, struct error *err)
{
	char text[64];

	if (!is_luks2(request) && request->sector > HEADER_UNIT)
		return "LUKS1 has sectors of 512 bytes";
	if (!is_luks2(request) && request->how.trust)
		return "LUKS1 can't be sealed: --trust is for luks2";
	if (!is_luks2(request) && request->label)
		return "LUKS1 has no label";
	if (request->label && strlen(request->label) > LUKS_LABEL_MAX)
		return "--label takes 47 bytes at the most";
	if (!!request->size + !!request->payload + !!request->like > 1)
		return "it is one of --size, --payload-size and --like";
	if (makes_file(request) && locator_is_uri(request->locator))
		return "--size, --payload-size and --like create files: an export has the size that "
		       "its server gives it";
	if (request->header && locator_is_uri(request->header))
		return "--header takes a path";
	if (kdf_check(&request->kdf))
		return kdf_check(&request->kdf);
	if (check_integrity(request))
		return check_integrity(request);
	if (tagged_supported(whole_cipher(request, text), choose_key_bits(request) / 8, err) < 0)
		return err->text;
	return key_source_check(&request->key_source);
}

static const struct option options[] = {
	OPEN_OPTIONS_KEY("", 0),
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "payload-size", required_argument, NULL, OPT_PAYLOAD_SIZE },
	{ "like", required_argument, NULL, OPT_LIKE },
	{ "type", required_argument, NULL, OPT_TYPE },
	{ "cipher", required_argument, NULL, OPT_CIPHER },
	{ "key-size", required_argument, NULL, OPT_KEY_SIZE },
	{ "sector-size", required_argument, NULL, OPT_SECTOR_SIZE },
	{ "integrity", required_argument, NULL, OPT_INTEGRITY },
	{ "integrity-no-journal", no_argument, NULL, OPT_NO_JOURNAL },
	{ "integrity-no-wipe", no_argument, NULL, OPT_NO_WIPE },
	{ "label", required_argument, NULL, OPT_LABEL },
	{ "uuid", required_argument, NULL, OPT_UUID },
	OPEN_OPTION_HEADER("header", 0),
	OPEN_OPTION_TRUST("trust", 0),
	KDF_LONG_OPTIONS,
	{ "yes", no_argument, NULL, 'q' },
	OPEN_OPTION_ANSWER_TIMEOUT,
	CMD_OPTIONS_END
};

int cmd_format(int argc, char **argv)
{
	struct request request = {
		.type = CRYPT_LUKS2,
		.key_source = KEY_SOURCE_NONE,
		.how = UNLOCK_DEFAULT,
	};
	int status = cmd_options(argc, argv, help_format, options, format_option, &request);
	const char *wrong = "it takes one locator";
	struct error err;

	if (status != CMD_GO_ON)
		return status;
	if (argc - optind == 1) {
		request.locator = argv[optind];
		if (!request.cipher)
			request.cipher = request.integrity ? request.integrity->cipher : CIPHER;
		wrong = check_format(&request, &err);
	}
	return wrong ? cmd_usage(argv[0], "%s", wrong) : format_disk(&request);
}
