/* cmd-info: ndio info. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/printable.h"
#include "command/cmd.h"
#include "command/open-options.h"
#include "copy/unlocking.h"
#include "header/facts.h"
#include "header/header.h"
#include "integrity/trusted.h"
#include "locator/locator.h"
#include "nbd/lasting-words.h"
#include "terminal/json.h"
#include "terminal/key-input.h"
#include "terminal/key-try.h"
#include "terminal/number.h"
#include "terminal/say.h"
#include "terminal/unlock.h"

const char help_info[] =
	"Usage: ndio info [OPTION...] LOCATOR\n"
	"Show what a volume is: its size, LUKS header and key slots, and its server.\n"
	"\n"
	"  --json             as JSON\n"
	"  --size             print the size in bytes, with a key that of what it decrypts to\n"
	"  --can NAME, --is NAME\n"
	"                     print nothing; status 0: it can or is so, 2: it can't or isn't, 1: not\n"
	"                     known\n" OPEN_HELP_HEADER
	"  --trust FILE       is it what it was when FILE was last written? See ndio trust\n"
	"  --unlock           open it too, with a passphrase that is asked for\n"
	"  --key-file FILE    open it too: every byte of FILE is the key; - is standard input\n" OPEN_HELP_KEY_PART
		OPEN_HELP_VOLUME_KEY OPEN_HELP_SLOT OPEN_HELP_TOKEN OPEN_HELP_MAX_KDF_TIME
			OPEN_HELP_ANSWER_TIMEOUT "  -h, --help         show this\n"
	"\n"
	"Nothing is written, and without a key nothing is asked. Exit status: 0 it is a LUKS volume,\n"
	"1 it isn't one, or can't be looked at. See ndio-info(1).\n";

enum { OPT_JSON = 256, OPT_UNLOCK, OPT_SIZE, OPT_CAN };

struct request {
	const char *locator;
	const char *header; /* detached, or NULL */
	bool json, unlock;
	bool size;               /* only that is shown */
	const char *question;    /* of --can or --is, or NULL */
	unsigned answer_timeout; /* seconds, or 0 */
	struct key_source key_source;
	struct unlock_options how;
};

/* All that is shown. */
struct report {
	const struct request *request;
	bool nbd;
	bool readonly;
	struct ndio_info disk; /* without a key */
	bool is_luks;
	struct header_facts luks;
	struct ndio_volume *server; /* of the disk, if that is on one */
	bool unlocked;
	struct ndio_info plain; /* with the key */
	struct seal_token seal; /* that the header has */
	struct {
		uint64_t areas, known;
		struct error why; /* the disk isn't what it was, or it can't be known; or "" */
	} trust;                  /* where a trust file is given */
};

static const struct {
	uint32_t bit;
	const char *name;
} abilities[] = {
	{ NDIO_CAN_FLUSH, "flush" },
	{ NDIO_CAN_FUA, "fua" },
	{ NDIO_CAN_TRIM, "trim" },
	{ NDIO_CAN_FAST_ZERO, "fast-zero" },
	{ NDIO_CAN_EXTENTS, "extents" },
	{ NDIO_CAN_CACHE, "cache" },
	{ NDIO_CAN_MULTI_CONN, "multi-conn" },
};
#define NR_ABILITIES (sizeof(abilities) / sizeof(abilities[0]))

/* ---- finding out ---- */

static const char *report_kind(const struct report *report)
{
	if (!report->is_luks)
		return "raw";
	return report->luks.version == 2 ? "LUKS2" : "LUKS1";
}

/* What the disk can as it is used: nobody zeroes ciphertext, or knows where it means zeroes, and trims
 * tell the server what is in use, so they are passed on for who asks for that, or where the header
 * allows it. */
static uint32_t abilities_of(const struct report *report)
{
	const uint32_t never = NDIO_CAN_FAST_ZERO | NDIO_CAN_EXTENTS;
	bool trims = strstr(report->luks.flags, "allow-discards");

	return report->disk.can & ~(report->is_luks ? never | (trims ? 0 : NDIO_CAN_TRIM) : 0);
}

static bool trims_if_asked(const struct report *report)
{
	return report->disk.can & NDIO_CAN_TRIM & ~abilities_of(report);
}

/* Bytes of plaintext, or 0 where the volume is too small for its header. */
static uint64_t payload_of(const struct report *report)
{
	const struct header_facts *luks = &report->luks;
	uint64_t size = report->disk.target_size;

	if (report->unlocked)
		return report->plain.size;
	if (luks->data_offset >= size || (luks->data_elsewhere && !report->request->header))
		return 0;
	size -= luks->data_offset;
	if (luks->data_size)
		return luks->data_size <= size ? luks->data_size : 0;
	return luks->sector ? size - size % luks->sector : size;
}

/* A path is only ever opened for reading: closing a block device that was open for writing
 * makes udev look at it again. A server is asked. */
static int find_disk(struct report *report, struct header *disk, struct error *err)
{
	const char *locator = report->request->locator;
	int ret;

	header_init(disk, locator);
	disk->answer_timeout = report->request->answer_timeout;
	ret = header_open(disk, !report->nbd, err);
	if (ret < 0)
		return ret;
	report->disk = disk->info;
	report->readonly =
		report->nbd ? !(disk->info.can & NDIO_CAN_WRITE) : access(locator, W_OK) < 0;
	return 0;
}

static int check_trust(struct report *report, struct header *holder, struct trusted *trusted,
		       struct error *err)
{
	int ret = trusted_check_header(trusted, &holder->memfd, err);

	if (ret < 0)
		return ret;
	report->trust.areas = trust_areas(&trusted->trust.volume);
	report->trust.known = trust_known(&trusted->trust);
	return 0;
}

/* What the trust file says of the header. */
static void look_at_trust(struct report *report, struct header *holder)
{
	const char *path = report->request->how.trust;
	struct trusted trusted;
	struct error err = { 0 };
	int ret = 0;

	report->seal = holder->trusted.token;
	if (path)
		ret = trusted_open(&trusted, path, true, &err);
	if (path && ret == 0)
		ret = check_trust(report, holder, &trusted, &err);
	if (path)
		trusted_close(&trusted, NULL);
	if (ret < 0)
		report->trust.why = err;
}

/* Without a detached header a volume that isn't LUKS is no error: it is raw. */
static int find_luks(struct report *report, struct header *holder, bool detached, struct error *err)
{
	int ret = header_load(holder, err);

	if (ret == -ENODATA && !detached)
		return 0;
	if (ret == 0)
		ret = facts_read(holder, &report->luks, err);
	report->is_luks = ret == 0;
	if (ret == 0)
		look_at_trust(report, holder);
	return ret;
}

static int find_header(struct report *report, struct header *disk, struct error *err)
{
	struct header detached;
	int ret;

	if (!report->request->header)
		return find_luks(report, disk, false, err);
	header_init(&detached, report->request->header);
	detached.answer_timeout = report->request->answer_timeout;
	ret = header_open(&detached, true, err);
	if (ret == 0)
		ret = find_luks(report, &detached, true, err);
	header_close(&detached);
	return ret;
}

/* A server may let in one client only, once: the connection that is there has to do. */
static int report_open_volume(struct report *report, const struct ndio_options *options,
			      struct ndio_volume **volume)
{
	if (!report->nbd)
		return ndio_open(report->request->locator, options, volume);
	*volume = report->server;
	return ndio_unlock(*volume, options);
}

static int report_try_key(void *opaque, const struct key *key, struct error *err)
{
	struct report *report = opaque;
	struct ndio_options options = {
		.struct_size = sizeof(options),
		.header = report->request->header,
		.flags = NDIO_OPEN_READONLY | NDIO_OPEN_NO_RECONNECT,
		.connections = 1,
		.answer_timeout = report->request->answer_timeout,
		.notice = say_notice,
	};
	struct ndio_volume *volume = NULL;
	int ret;

	unlocking_set(&report->request->how, key, &options);
	ret = report_open_volume(report, &options, &volume);
	report->plain.struct_size = sizeof(report->plain);
	if (ret == 0)
		ret = ndio_get_info(volume, &report->plain);
	if (ret < 0)
		error_set(err, -ret, "%s", ndio_error());
	if (!report->nbd)
		ndio_close(volume, NDIO_CLOSE_WAIT);
	report->unlocked = ret == 0;
	return ret;
}

static int report_unlock(struct report *report, struct error *err)
{
	const struct request *request = report->request;
	struct key key;
	char prompt[256];
	int ret;

	if (!request->unlock && !request->how.by_tokens && !key_source_given(&request->key_source))
		return 0;
	if (report->trust.why.text[0])
		return 0; /* no passphrase is for this header */
	if (!report->is_luks)
		return error_set(err, EINVAL, "%s: not a LUKS volume: there is nothing to unlock",
				 request->locator);
	snprintf(prompt, sizeof(prompt), "Passphrase for %s", request->locator);
	ret = key_try(&request->key_source, &request->how, prompt, &key, report_try_key, report,
		      err);
	key_clear(&key);
	return ret;
}

static int find_out(struct report *report, struct error *err)
{
	struct header disk;
	int ret = find_disk(report, &disk, err);

	if (ret == 0)
		ret = find_header(report, &disk, err);
	if (!report->nbd)
		header_close(&disk); /* locks exclude each other */
	report->server = disk.volume;
	if (ret == 0)
		ret = report_unlock(report, err);
	header_close(&disk);
	return ret;
}

/* ---- for people ---- */

static void line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void line(const char *name, const char *fmt, ...)
{
	va_list args;

	printf("    %-18s", name);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

static void size_line(const char *name, uint64_t bytes)
{
	char text[16];

	if (bytes < 1024)
		line(name, "%" PRIu64 " bytes", bytes);
	else
		line(name, "%" PRIu64 " bytes (%s)", bytes, size_text(bytes, text));
}

static void print_abilities(const struct report *report)
{
	uint32_t can = abilities_of(report);
	char text[128] = "";
	size_t len = 0;

	for (size_t i = 0; i < NR_ABILITIES; i++)
		if (can & abilities[i].bit)
			len += snprintf(text + len, sizeof(text) - len, "%s%s", len ? " " : "",
					abilities[i].name);
	line("can:", "%s%s", len ? text : "nothing more",
	     trims_if_asked(report) ? ", and trim if asked to (--discard, discard=on)" : "");
}

static void block_line(const char *name, uint32_t bytes)
{
	if (bytes)
		line(name, "%" PRIu32 " bytes", bytes);
	else
		line(name, "the server doesn't tell");
}

static void print_disk(const struct report *report)
{
	line("kind:", "%s", report_kind(report));
	size_line("size:", report->disk.target_size);
	line("read-only:", "%s", report->readonly ? "yes" : "no");
	print_abilities(report);
}

static void print_server(const struct report *report)
{
	const struct ndio_info *disk = &report->disk;
	char clean[sizeof(disk->tls_peer)];

	line("server:", "NBD (%s), %s TLS, %s replies", disk->protocol,
	     disk->tls ? "with" : "without", disk->structured_replies ? "structured" : "simple");
	if (disk->tls_version[0])
		line("TLS:", "%s, %s", disk->tls_version, disk->tls_cipher);
	if (disk->tls_version[0])
		line("TLS peer:", "%s",
		     disk->tls_peer[0] ? printable(disk->tls_peer, clean, sizeof(clean)) :
					 "not verified");
	line("survives:", "%s", lasting_grade_word(disk->fences));
	line("instance:", "%s", disk->instance[0] ? disk->instance : "the server doesn't tell");
	block_line("block minimum:", report->disk.block_minimum);
	block_line("block preferred:", report->disk.block_preferred);
	block_line("block maximum:", report->disk.block_maximum);
}

/* What nobody would find out. */
static const char *not_protected(const struct report *report)
{
	bool integrity = report->luks.integrity[0];

	if (report->request->how.trust)
		return integrity ? NULL : "the data: without integrity they can't be checked";
	if (report->seal.number < 0)
		return integrity ? "an older disk, or another header (ndio trust)" : NULL;
	return integrity ? "an older disk, or an older header (--trust)" :
			   "the data, or an older header (--trust)";
}

static void print_trust(const struct report *report)
{
	const char *path = report->request->how.trust, *nothing = not_protected(report);
	const char *why = report->trust.why.text;
	char clean[1024];

	if (report->seal.number >= 0)
		line("sealed:", report->seal.good ? "yes, seal %" PRIu64 : "not any more",
		     report->seal.count);
	if (path && !why[0])
		line("trust:", "%s: the header is the one that was sealed%s",
		     printable(path, clean, sizeof(clean)),
		     report->unlocked ? ", and opens with its key" : "");
	else if (path)
		line("trust:", "no: %s", printable(why, clean, sizeof(clean)));
	if (report->trust.areas)
		line("areas:", "%" PRIu64 ", of which %" PRIu64 " are known", report->trust.areas,
		     report->trust.known);
	if (nothing)
		line("not protected:", "%s", nothing);
}

static void print_luks(const struct report *report)
{
	const struct header_facts *luks = &report->luks;

	if (report->request->header)
		line("header:", "%s (detached)", report->request->header);
	else if (luks->data_elsewhere)
		line("data:", "elsewhere: this is a detached header, to be given with --header");
	if (luks->damaged_copy[0])
		line("damaged:",
		     "the %s of the header's two copies: ndio key add, change or remove "
		     "puts it right",
		     luks->damaged_copy);
	line("UUID:", "%s", luks->uuid);
	if (luks->version == 2)
		line("label:", "%s", luks->label[0] ? luks->label : "(none)");
	line("cipher:", "%s", luks->cipher);
	if (luks->key_bits)
		line("volume key:", "%u bits", luks->key_bits);
	line("sector size:", "%u bytes", luks->sector);
	size_line("data offset:", luks->data_offset);
	size_line("payload size:", payload_of(report));
	if (luks->integrity[0])
		line("integrity:", "%s", luks->integrity);
	if (luks->tag_size) {
		line("tags:", "%u bytes a sector", luks->tag_size);
		line("journal:", "%" PRIu32 " sections", luks->journal_sections);
	}
	print_trust(report);
	if (luks->requirements[0])
		line("requirements:", "%s", luks->requirements);
	if (luks->flags[0])
		line("flags:", "%s", luks->flags);
	if (report->unlocked)
		line("unlocked:", "yes");
	if (luks->memory_kib)
		line("memory to unlock:", "%" PRIu32 " KiB", luks->memory_kib);
	line("key slots:", "%u", luks->nr_slots);
	if (luks->nr_slots)
		facts_print_slots(luks, "        ");
	if (luks->nr_tokens) {
		line("tokens:", "%u", luks->nr_tokens);
		facts_print_tokens(luks, "        ");
	}
}

static void print_report(const struct report *report)
{
	char clean[1024];

	printf("%s:\n", printable(report->request->locator, clean, sizeof(clean)));
	print_disk(report);
	if (report->nbd)
		print_server(report);
	if (report->is_luks)
		print_luks(report);
}

/* ---- for programs ---- */

static struct json_object *json_abilities(uint32_t can)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < NR_ABILITIES; i++)
		if (can & abilities[i].bit)
			json_object_array_add(array, json_object_new_string(abilities[i].name));
	return array;
}

static struct json_object *json_slot(const struct slot_facts *slot)
{
	struct json_object *object = json_object_new_object();

	json_add_number(object, "slot", slot->number);
	json_add_text(object, "priority", slot->priority);
	if (slot->unbound)
		json_add_flag(object, "unbound", true);
	json_add_text(object, "pbkdf", slot->pbkdf);
	if (slot->hash[0])
		json_add_text(object, "hash", slot->hash);
	json_add_number(object, "iterations", slot->iterations);
	if (slot->memory_kib) {
		json_add_number(object, "memory_kib", slot->memory_kib);
		json_add_number(object, "threads", slot->threads);
	}
	return object;
}

static struct json_object *json_slots(const struct header_facts *luks)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < luks->nr_slots; i++)
		json_object_array_add(array, json_slot(&luks->slots[i]));
	return array;
}

static struct json_object *json_token(const struct token_facts *token)
{
	struct json_object *object = json_object_new_object();
	struct json_object *slots = json_object_new_array();

	json_add_number(object, "token", token->number);
	json_add_text(object, "type", token->type);
	if (token->about[0])
		json_add_text(object, "about", token->about);
	for (int slot = 0; slot < FACTS_SLOTS; slot++)
		if (token->slots >> slot & 1)
			json_object_array_add(slots, json_object_new_int(slot));
	json_object_object_add(object, "key_slots", slots);
	return object;
}

static struct json_object *json_tokens(const struct header_facts *luks)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < luks->nr_tokens; i++)
		json_object_array_add(array, json_token(&luks->tokens[i]));
	return array;
}

/* What has spaces between them, one by one. */
static struct json_object *json_words(const char *text)
{
	struct json_object *array = json_object_new_array();

	for (size_t len; text += strspn(text, " "), *text; text += len) {
		len = strcspn(text, " ");
		json_object_array_add(array, json_object_new_string_len(text, len));
	}
	return array;
}

static struct json_object *json_trust(const struct report *report)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "file", report->request->how.trust);
	json_add_flag(object, "fits", !report->trust.why.text[0]);
	json_add_text(object, "why_not", report->trust.why.text);
	json_add_number(object, "areas", report->trust.areas);
	json_add_number(object, "areas_known", report->trust.known);
	return object;
}

static struct json_object *json_luks(const struct report *report)
{
	const struct header_facts *luks = &report->luks;
	struct json_object *object = json_object_new_object();

	json_add_number(object, "version", luks->version);
	if (report->request->header)
		json_add_text(object, "header", report->request->header);
	if (luks->damaged_copy[0])
		json_add_text(object, "damaged_copy", luks->damaged_copy);
	json_add_text(object, "uuid", luks->uuid);
	json_add_text(object, "label", luks->label);
	json_add_text(object, "cipher", luks->cipher);
	json_add_number(object, "key_bits", luks->key_bits);
	json_add_number(object, "sector_size", luks->sector);
	json_add_number(object, "data_offset", luks->data_offset);
	json_add_number(object, "payload_size", payload_of(report));
	json_add_text(object, "integrity", luks->integrity);
	if (luks->tag_size) {
		json_add_number(object, "tag_size", luks->tag_size);
		json_add_number(object, "journal_sections", luks->journal_sections);
	}
	json_add_number(object, "seal", report->seal.good ? report->seal.count : 0);
	if (report->request->how.trust)
		json_object_object_add(object, "trust", json_trust(report));
	json_add_text(object, "requirements", luks->requirements);
	json_object_object_add(object, "flags", json_words(luks->flags));
	json_add_flag(object, "data_elsewhere", luks->data_elsewhere && !report->request->header);
	json_add_flag(object, "unlocked", report->unlocked);
	json_add_number(object, "memory_to_unlock_kib", luks->memory_kib);
	json_object_object_add(object, "key_slots", json_slots(luks));
	json_object_object_add(object, "tokens", json_tokens(luks));
	return object;
}

static struct json_object *json_server(const struct report *report)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "uri", report->request->locator);
	json_add_text(object, "protocol", report->disk.protocol);
	json_add_flag(object, "tls", report->disk.tls);
	if (report->disk.tls_version[0]) {
		json_add_text(object, "tls_version", report->disk.tls_version);
		json_add_text(object, "tls_cipher", report->disk.tls_cipher);
		json_add_text(object, "tls_peer", report->disk.tls_peer);
	}
	json_add_flag(object, "structured_replies", report->disk.structured_replies);
	json_add_text(object, "survives", lasting_grade_word(report->disk.fences));
	json_add_text(object, "instance", report->disk.instance);
	json_add_number(object, "block_minimum", report->disk.block_minimum);
	json_add_number(object, "block_preferred", report->disk.block_preferred);
	json_add_number(object, "block_maximum", report->disk.block_maximum);
	return object;
}

static void print_json(const struct report *report)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "locator", report->request->locator);
	json_add_text(object, "kind", report_kind(report));
	json_add_number(object, "size", report->disk.target_size);
	json_add_flag(object, "read_only", report->readonly);
	json_object_object_add(object, "can", json_abilities(abilities_of(report)));
	json_object_object_add(object, "can_if_asked",
			       json_abilities(trims_if_asked(report) ? NDIO_CAN_TRIM : 0));
	if (report->nbd)
		json_object_object_add(object, "server", json_server(report));
	if (report->is_luks)
		json_object_object_add(object, "luks", json_luks(report));
	json_print(object);
}

/* ---- for scripts: nbdinfo's words, and statuses ---- */

#define ANSWER_NO 2

static bool can_read(const struct report *report)
{
	(void)report;
	return true; /* it is open */
}

static bool can_write(const struct report *report)
{
	return !report->readonly;
}

static bool is_tls(const struct report *report)
{
	return report->disk.tls;
}

static bool is_readonly(const struct report *report)
{
	return report->readonly;
}

static bool has_structured_replies(const struct report *report)
{
	return report->disk.structured_replies;
}

/* Besides the abilities. */
static const struct {
	const char *name;
	bool (*answer)(const struct report *report);
} questions[] = {
	{ "connect", can_read },
	{ "read", can_read },
	{ "write", can_write },
	{ "zero", can_write }, /* zeroes are written, where there is no other way */
	{ "read-only", is_readonly },
	{ "tls", is_tls },
	{ "structured-reply", has_structured_replies },
};
#define NR_QUESTIONS (sizeof(questions) / sizeof(questions[0]))

static bool is_question(const char *name)
{
	for (size_t i = 0; i < NR_ABILITIES; i++)
		if (strcmp(name, abilities[i].name) == 0)
			return true;
	for (size_t i = 0; i < NR_QUESTIONS; i++)
		if (strcmp(name, questions[i].name) == 0)
			return true;
	return false;
}

static int answer(const struct report *report)
{
	bool yes = false;

	for (size_t i = 0; i < NR_ABILITIES; i++)
		if (strcmp(report->request->question, abilities[i].name) == 0)
			yes = abilities_of(report) & abilities[i].bit;
	for (size_t i = 0; i < NR_QUESTIONS; i++)
		if (strcmp(report->request->question, questions[i].name) == 0)
			yes = questions[i].answer(report);
	return yes ? CMD_OK : ANSWER_NO;
}

/* Its usage is no answer of theirs. */
static bool asks(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "--can", 5) == 0 || strncmp(argv[i], "--is", 4) == 0)
			return true;
	return false;
}

/* ---- the command line ---- */

static int show_info(const struct request *request)
{
	struct report report = { .request = request, .nbd = locator_is_uri(request->locator) };
	struct error err = { 0 };

	if (find_out(&report, &err) < 0)
		return cmd_error("%s", err.text);
	if ((request->question || request->size) && report.trust.why.text[0])
		return cmd_error("%s", report.trust.why.text);
	if (request->question)
		return answer(&report);
	if (request->size) {
		printf("%" PRIu64 "\n",
		       report.unlocked ? report.plain.size : report.disk.target_size);
		return CMD_OK;
	}
	if (request->json)
		print_json(&report);
	else
		print_report(&report);
	if (report.trust.why.text[0] && fflush(stdout) == 0)
		return cmd_error("%s", report.trust.why.text);
	if (report.is_luks)
		return CMD_OK;
	/* For scripts, as cryptsetup isLuks; what isn't printed is told by main(). */
	if (fflush(stdout) == 0)
		cmd_error("%s: not a LUKS volume", request->locator);
	return CMD_FAILED;
}

static const char *info_option(void *opaque, int option, const char *value)
{
	struct request *request = opaque;
	const struct open_options open = {
		.key = &request->key_source,
		.how = &request->how,
		.header = &request->header,
		.answer_timeout = &request->answer_timeout,
		.twice = "a key comes from one --key-file or --key-fd",
	};

	if (option == OPT_JSON)
		request->json = true;
	else if (option == OPT_UNLOCK)
		request->unlock = true;
	else if (option == OPT_SIZE)
		request->size = true;
	else if (option == OPT_CAN && (request->question || !is_question(value)))
		return "--can and --is take one of flush, fua, trim, fast-zero, extents, cache, "
		       "multi-conn, connect, read, write, zero, structured-reply, read-only, tls";
	else if (option == OPT_CAN)
		request->question = value;
	else
		return open_option(&open, option, value);
	return NULL;
}

static const struct option options[] = { { "json", no_argument, NULL, OPT_JSON },
					 { "size", no_argument, NULL, OPT_SIZE },
					 { "can", required_argument, NULL, OPT_CAN },
					 { "is", required_argument, NULL, OPT_CAN },
					 OPEN_OPTION_HEADER("header", 0),
					 { "unlock", no_argument, NULL, OPT_UNLOCK },
					 OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTION_TRUST("trust", 0),
					 OPEN_OPTION_SLOT("slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_info(int argc, char **argv)
{
	struct request request = { .key_source = KEY_SOURCE_NONE, .how = UNLOCK_DEFAULT };
	bool question = asks(argc, argv);
	int status = cmd_options(argc, argv, help_info, options, info_option, &request);
	const char *wrong = key_source_check(&request.key_source);

	if (status != CMD_GO_ON)
		return status == CMD_USAGE && question ? CMD_FAILED : status;
	if (argc - optind != 1)
		wrong = "it takes one locator";
	else if (request.unlock && key_source_given(&request.key_source))
		wrong = "--unlock asks for a passphrase: it isn't for a key from a file or descriptor";
	else if (request.json + request.size + !!request.question > 1)
		wrong = "--json, --size, --can and --is are different answers: ask for one";
	if (wrong)
		status = cmd_usage(argv[0], "%s", wrong);
	if (wrong)
		return question ? CMD_FAILED : status;
	request.locator = argv[optind];
	return show_info(&request);
}
