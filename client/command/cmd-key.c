/* cmd-key: ndio key add|remove|change|list. */
#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach/clash.h"
#include "command/cmd.h"
#include "command/open-options.h"
#include "engine/target.h"
#include "header/binding.h"
#include "header/facts.h"
#include "header/header-edit.h"
#include "header/header-lock.h"
#include "header/header-seal.h"
#include "header/header.h"
#include "header/kdf.h"
#include "locator/locator.h"
#include "memory/secret.h"
#include "terminal/deferral.h"
#include "terminal/key-input.h"
#include "terminal/key-try.h"
#include "terminal/number.h"
#include "terminal/pin-input.h"
#include "terminal/say.h"
#include "terminal/unlock.h"

const char help_key[] =
	"Usage: ndio key add    [OPTION...] LOCATOR\n"
	"       ndio key remove [OPTION...] LOCATOR\n"
	"       ndio key change [OPTION...] LOCATOR\n"
	"       ndio key dump   [OPTION...] LOCATOR FILE\n"
	"       ndio key list   [--header PATH] [--answer-timeout SECONDS] LOCATOR\n"
	"       ndio key bind   [OPTION...] tang URL LOCATOR\n"
	"       ndio key bind   [OPTION...] tpm2 LOCATOR\n"
	"       ndio key bind   [OPTION...] pkcs11 URI LOCATOR\n"
	"       ndio key bind   [OPTION...] keyring DESCRIPTION LOCATOR\n"
	"       ndio key bind   [OPTION...] clevis PIN CONFIG LOCATOR\n"
	"       ndio key unbind [OPTION...] TOKEN LOCATOR\n"
	"Add, remove, change or list the keys that open an encrypted volume, or write out the one that\n"
	"they hold; bind it to what opens it without a person, or no more.\n"
	"\n"
	"  --key-file FILE    a key that opens it now: every byte of FILE; - is standard input\n"
	"  --key-fd N         the same, from descriptor N\n"
	"  --volume-key-file FILE\n"
	"                     add, dump: the volume key itself: no key slot is opened\n"
	"  --new-key-file FILE, --new-key-fd N\n"
	"                     the key to be added, or to change it to\n"
	"  --keyfile-offset N, --keyfile-size N, --new-keyfile-offset N, --new-keyfile-size N\n"
	"                     of these, pass over N bytes, and take no more than N\n"
	"  --slot N           add, bind: the key slot to use; remove, change: the one that it is\n"
	"                     about\n"
	"  --key-slot N       but for change: the key that opens it now has to open this slot\n"
	"  --token N|any      but for change: it is opened now by one of its tokens, or any; by a\n"
	"                     key only where that fails\n"
	"  --thumbprint HASH  tang: of the key that the server signs with\n"
	"  --trust-keys       tang, clevis: whatever keys a server has now are its own\n"
	"  --pcrs LIST        tpm2: the registers that have to be as they are now, 7+11 (default: as\n"
	"                     systemd-cryptenroll has it)\n"
	"  --pin              tpm2: it wants a PIN besides, which is asked for\n"
	"  --max-kdf-time SECONDS\n"
	"                     how long deriving keys may take, to open it (default 120)\n" OPEN_HELP_HEADER
	"  --trust FILE       it has to be what it was when FILE was last written, which learns what\n"
	"                     is changed: see ndio trust\n"
	"  --force            remove, unbind: the last key slot too, after which nothing opens the\n"
	"                     volume; unbind, and remove with --slot, ask for no key then; dump: do\n"
	"                     not ask\n" OPEN_HELP_NO_LOCK OPEN_HELP_ANSWER_TIMEOUT KDF_HELP
	"  -h, --help         show this\n"
	"\n"
	"Keys that no option names are asked for at the terminal. See ndio-key(1).\n";

enum {
	OPT_SLOT = KDF_END,
	OPT_FORCE,
	OPT_NO_LOCK_IMAGE,
	OPT_THUMBPRINT,
	OPT_TRUST_KEYS,
	OPT_PCRS,
	OPT_PIN
};

struct request;

struct action {
	const char *name;
	int (*run)(struct header *header, const struct request *request, struct error *err);
	bool writes;
	bool needs_new_key;
	bool changes_slot; /* --slot is the one that the key opens */
	bool needs_file;   /* a second operand */
	const char *(*take)(struct request *request, int count, char **operands); /* or NULL */
};

struct volume_key {
	void *data; /* from secret_alloc() */
	size_t len; /* bytes */
};

/* What the command line asks for. */
struct request {
	const char *self; /* argv[0] */
	const struct action *action;
	const char *locator; /* of the volume */
	const char *header;  /* detached, or NULL */
	const char *file;    /* that the volume key goes to */
	int slot;            /* or CRYPT_ANY_SLOT */
	int opens;           /* the slot that the key was found to open, or CRYPT_ANY_SLOT */
	bool force;
	bool no_lock; /* of the image */
	struct unlock_options how;
	unsigned answer_timeout; /* seconds, or 0 */
	struct kdf_options kdf;
	struct key_source key_source, new_key_source;
	struct key key, new_key;    /* read before the header is locked */
	struct volume_key by_token; /* likewise, where a token has opened it, and so no key is */
	struct key *pin;            /* of a token that has opened it, or none yet */
	struct binding *binding;
	int unbound; /* bind, unbind: the token */
};

static const char *header_locator(const struct request *request)
{
	return request->header ? request->header : request->locator;
}

/* Removing a certain slot by force is possible without any key; one that is given has to open. */
static bool needs_key(const struct request *request)
{
	bool forced = request->force && !request->action->needs_file &&
		      (request->slot != CRYPT_ANY_SLOT || request->unbound != LUKS_ANY_TOKEN);
	bool given = key_source_given(&request->key_source) || request->how.by_tokens;

	return (request->action->writes || request->action->needs_file) && (!forced || given);
}

/* Which slot the key has to open, or CRYPT_ANY_SLOT. The one that is known isn't looked for again. */
static int slot_to_open(const struct request *request)
{
	if (request->opens != CRYPT_ANY_SLOT)
		return request->opens;
	return request->action->changes_slot ? request->slot : request->how.slot;
}

/* ---- the volume key, and key slots ---- */

static bool is_active(struct header *header, int slot)
{
	crypt_keyslot_info status = crypt_keyslot_status(header->memfd.cd, slot);

	return status == CRYPT_SLOT_ACTIVE || status == CRYPT_SLOT_ACTIVE_LAST;
}

/* An unbound one, too, which holds another key than the volume's. */
static bool is_in_use(struct header *header, int slot)
{
	return is_active(header, slot) ||
	       crypt_keyslot_status(header->memfd.cd, slot) == CRYPT_SLOT_UNBOUND;
}

/* Nobody is asked twice: what opens it has to open it once more, when the header is locked. */
static int key_pin(void *opaque, const char *token, struct key *pin, struct error *err)
{
	struct key *known = opaque;
	int ret;

	if (known->data && !err->text[0])
		return key_set(pin, known->data, known->len, err);
	ret = pin_input(NULL, token, pin, err);
	if (ret < 0)
		return ret;
	key_clear(known);
	return key_set(known, pin->data, pin->len, err);
}

static struct luks_tokens tokens_of(const struct request *request)
{
	return (struct luks_tokens){
		.number = request->how.token,
		.wait = request->answer_timeout,
		.pin = key_pin,
		.opaque = request->pin,
	};
}

/* What a token has opened before it was locked still is its key? A server needn't be asked twice for that. */
static int keep_volume_key(struct header *header, const struct request *request,
			   struct volume_key *volume_key, struct error *err)
{
	const struct volume_key *known = &request->by_token;

	if (crypt_volume_key_verify(header->memfd.cd, known->data, known->len) < 0 ||
	    !is_active(header, request->opens))
		return error_set(err, EBUSY, "%s: its LUKS header changed meanwhile", header->name);
	volume_key->data = secret_alloc(known->len, err);
	if (!volume_key->data)
		return -ENOMEM;
	volume_key->len = known->len;
	memcpy(volume_key->data, known->data, known->len);
	return request->opens;
}

/* Opens a slot. Its number, or a negative errno. The caller ends with forget_volume_key() either
 * way. Without a key it is done by the tokens. */
static int unlock_slot(struct header *header, const struct request *request, const struct key *key,
		       struct volume_key *volume_key, struct error *err)
{
	const struct notice listener = { .tell = say_notice };
	const struct luks_tokens tokens = tokens_of(request);
	int slot, ret;
	const struct luks_pass pass = {
		.data = key->data,
		.len = key->len,
		.name = "this key",
		.slot = slot_to_open(request),
		.volume_key = request->how.volume_key,
		.max_kdf_time = request->how.max_kdf_time,
		.notice = &listener,
		.tokens = &tokens,
	};

	if (request->by_token.data)
		slot = keep_volume_key(header, request, volume_key, err);
	else if (!key->data)
		slot = luks_tokens_open(&header->memfd, &pass, NULL, &volume_key->data,
					&volume_key->len, err);
	else
		slot = luks_slots_open(&header->memfd, &pass, NULL, &volume_key->data,
				       &volume_key->len, err);
	if (slot < 0)
		return slot;
	ret = header_seal_key(header, volume_key->data, volume_key->len, err);
	return ret < 0 ? ret : slot;
}

static void forget_volume_key(struct volume_key *volume_key)
{
	secret_free(volume_key->data, volume_key->len);
}

/* Puts the new key into a slot of the memfd. The slot's number, or a negative errno. */
static int fill_slot(struct header *header, const struct request *request, int slot,
		     const struct volume_key *volume_key, struct error *err)
{
	int ret = kdf_apply(&request->kdf, header, crypt_get_type(header->memfd.cd), err);

	if (ret < 0)
		return ret;
	ret = crypt_keyslot_add_by_volume_key(header->memfd.cd, slot, volume_key->data,
					      volume_key->len, request->new_key.data,
					      request->new_key.len);
	if (ret < 0)
		return error_set(err, -ret, "%s: filling a free key slot: %s", header->name,
				 luks_memfd_reason(&header->memfd, ret));
	return ret;
}

static int empty_slot(struct header *header, int slot, const struct header_proof *proof,
		      struct error *err)
{
	int ret = crypt_keyslot_destroy(header->memfd.cd, slot);

	if (ret < 0)
		return error_set(err, -ret, "%s: removing key slot %d: %s", header->name, slot,
				 luks_memfd_reason(&header->memfd, ret));
	return header_write_back(header, HEADER_REMOVED, proof, err);
}

/* ---- the actions ---- */

/* Fills a slot, on the volume too, where the new key has been shown to open it. Its number, or a
 * negative errno. */
static int add_slot(struct header *header, const struct request *request, int slot,
		    const struct volume_key *volume_key, struct error *err)
{
	struct header_proof proof = { .key = &request->new_key };
	int ret = fill_slot(header, request, slot, volume_key, err);

	if (ret < 0)
		return ret;
	proof.slot = slot = ret;
	ret = header_write_back(header, HEADER_ADDED, &proof, err);
	return ret < 0 ? ret : slot;
}

static int add_key(struct header *header, const struct request *request, struct error *err)
{
	struct volume_key volume_key = { 0 };
	int slot = unlock_slot(header, request, &request->key, &volume_key, err);

	if (slot >= 0)
		slot = add_slot(header, request, request->slot, &volume_key, err);
	forget_volume_key(&volume_key);
	if (slot < 0)
		return slot;
	printf("key slot %d added\n", slot);
	return 0;
}

static int no_free_slot(const struct header *header, struct error *err)
{
	return error_set(err, ENOSPC,
			 "%s: filling a free key slot: there is none, and the old key "
			 "isn't overwritten before the new one opens: remove another first",
			 header->name);
}

/* libcryptsetup puts the new key into a free area, and gives that the number, tokens and digest of
 * the old slot, whose area it wipes. On the volume that is one change of the metadata. */
static int change_luks2(struct header *header, const struct request *request, int slot,
			struct error *err)
{
	struct crypt_device *cd = header->memfd.cd;
	const struct key *old = &request->key, *new = &request->new_key;
	struct header_proof proof = { .key = new };
	crypt_keyslot_priority priority = crypt_keyslot_get_priority(cd, slot);
	uint64_t before = 0, now = 0, len;
	int ret = kdf_apply(&request->kdf, header, CRYPT_LUKS2, err);

	if (ret < 0)
		return ret;
	crypt_keyslot_area(cd, slot, &before, &len);
	ret = crypt_keyslot_change_by_passphrase(
		cd, slot, CRYPT_ANY_SLOT, old->len ? old->data : "", old->len, new->data, new->len);
	if (ret < 0)
		return error_set(err, -ret, "%s: filling a free key slot: %s", header->name,
				 luks_memfd_reason(&header->memfd, ret));
	proof.slot = ret;
	crypt_keyslot_area(cd, proof.slot, &now, &len);
	if (now == before)
		return no_free_slot(header, err);
	crypt_keyslot_set_priority(cd, proof.slot, priority);
	ret = header_prove_memfd(header, &proof, err);
	if (ret == 0)
		ret = header_write_back(header, HEADER_CHANGED, &proof, err);
	return ret;
}

/* A slot of LUKS1 has its place. So the new key is in another one for a while, and at every moment
 * one that opens is left. */
static int change_luks1(struct header *header, const struct request *request, int slot,
			const struct volume_key *volume_key, struct error *err)
{
	struct error reason;
	int other = add_slot(header, request, CRYPT_ANY_SLOT, volume_key, err);
	int ret;

	if (other < 0)
		return other;
	ret = empty_slot(header, slot, NULL, &reason);
	if (ret == 0)
		ret = add_slot(header, request, slot, volume_key, &reason);
	if (ret >= 0)
		ret = empty_slot(header, other, NULL, &reason);
	if (ret < 0)
		return error_set(err, -ret, "%s (the new key is in slot %d)", reason.text, other);
	return 0;
}

static int change(struct header *header, const struct request *request, struct error *err)
{
	struct volume_key volume_key = { 0 };
	int slot = unlock_slot(header, request, &request->key, &volume_key, err);
	int ret = slot;

	if (slot >= 0)
		ret = header->version == 2 ? change_luks2(header, request, slot, err) :
					     change_luks1(header, request, slot, &volume_key, err);
	forget_volume_key(&volume_key);
	if (ret == 0)
		printf("key slot %d changed\n", slot);
	return ret;
}

/* What opened it has to, afterwards. */
static struct header_proof existing_key(const struct request *request,
					const struct luks_tokens *tokens)
{
	return (struct header_proof){
		.key = request->by_token.data ? NULL : &request->key,
		.tokens = tokens,
	};
}

static int refuse_last(const struct header *header, int slot, struct error *err)
{
	return error_set(err, EBUSY,
			 "%s: key slot %d is the last: without it nothing opens the "
			 "volume any more (--force removes it)",
			 header->name, slot);
}

/* Unless it is its own slot that goes, the key that was given opens the volume afterwards, too. */
static int remove_slot(struct header *header, const struct request *request, struct error *err)
{
	const struct luks_tokens tokens = tokens_of(request);
	struct volume_key volume_key = { 0 };
	struct header_proof proof = existing_key(request, &tokens);
	int slot = request->slot, ret = 0;

	if (slot != CRYPT_ANY_SLOT && !is_in_use(header, slot))
		return error_set(err, ENOENT, "%s: key slot %d is not in use", header->name, slot);
	if (needs_key(request)) {
		ret = unlock_slot(header, request, &request->key, &volume_key, err);
		forget_volume_key(&volume_key);
		if (ret < 0)
			return ret;
		proof.slot = ret;
	}
	if (slot == CRYPT_ANY_SLOT)
		slot = proof.slot;
	if (crypt_keyslot_status(header->memfd.cd, slot) == CRYPT_SLOT_ACTIVE_LAST &&
	    !request->force)
		return refuse_last(header, slot, err);
	ret = empty_slot(header, slot, needs_key(request) && slot != proof.slot ? &proof : NULL,
			 err);
	if (ret == 0)
		printf("key slot %d removed\n", slot);
	return ret;
}

/* ---- the volume key in a file ---- */

static int ask_to_dump(const struct request *request, struct error *err)
{
	char question[1024];
	int ret;

	if (request->force)
		return 0;
	snprintf(question, sizeof(question),
		 "The volume key opens %s without a passphrase, whatever becomes of its key slots. "
		 "Type YES to write it to %s:",
		 request->locator, request->file);
	ret = terminal_confirm(question);
	if (ret == 1)
		return 0;
	return ret == 0 ? error_set(err, ECANCELED, "%s: not written", request->file) :
			  error_set(err, EPERM,
				    "%s: the volume key opens %s without a passphrase; without a "
				    "terminal to ask at, --force is needed to write it",
				    request->file, request->locator);
}

static int write_volume_key(const char *path, const struct volume_key *volume_key,
			    struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
	ssize_t n = -1;

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	n = write(fd, volume_key->data, volume_key->len);
	if (n >= 0 && (size_t)n < volume_key->len)
		errno = ENOSPC;
	if (n != (ssize_t)volume_key->len || fsync(fd) < 0) {
		error_set(err, errno, "%s: writing the volume key: %s", path, strerror(errno));
		unlink(path);
		n = -1;
	}
	close(fd);
	return n < 0 ? -EIO : 0;
}

static int key_dump(struct header *header, const struct request *request, struct error *err)
{
	struct volume_key volume_key = { 0 };
	int ret = unlock_slot(header, request, &request->key, &volume_key, err);

	if (ret >= 0)
		ret = ask_to_dump(request, err);
	if (ret >= 0)
		ret = write_volume_key(request->file, &volume_key, err);
	forget_volume_key(&volume_key);
	return ret < 0 ? ret : 0;
}

static int list(struct header *header, const struct request *request, struct error *err)
{
	struct header_facts facts;
	int ret = facts_read(header, &facts, err);

	(void)request;
	if (ret < 0)
		return ret;
	facts_print_slots(&facts, "");
	if (facts.nr_tokens)
		facts_print_tokens(&facts, "");
	return 0;
}

/* ---- and without a person ---- */

/* It is shown to open by the token, before the old metadata are gone. */
static int bind_to(struct header *header, const struct request *request, struct error *err)
{
	struct luks_tokens tokens = tokens_of(request);
	const struct header_proof proof = { .tokens = &tokens, .slot = LUKS_ANY_SLOT };
	struct volume_key volume_key = { 0 };
	int ret = unlock_slot(header, request, &request->key, &volume_key, err);

	tokens.pin = binding_pin;
	tokens.opaque = request->binding;
	if (ret >= 0)
		ret = binding_add(request->binding, header, volume_key.data, volume_key.len,
				  &request->kdf, request->slot, err);
	forget_volume_key(&volume_key);
	if (ret < 0)
		return ret;
	tokens.number = ret;
	ret = header_write_back(header, HEADER_ADDED, &proof, err);
	if (ret == 0)
		printf("token %d added\n", tokens.number);
	return ret;
}

/* It can't prove that it still opens the volume. */
static bool is_by_itself(const struct request *request)
{
	return request->by_token.data && request->how.token == request->unbound;
}

/* Of the key slots that go, none is the one that was opened, and one is left. */
static int check_left(struct header *header, const struct request *request, uint32_t slots,
		      int opened, struct error *err)
{
	int left = 0;

	for (int slot = 0; slot <= UNLOCK_MAX_SLOT; slot++)
		left += is_active(header, slot) && !(slots >> slot & 1);
	if (is_by_itself(request))
		return error_set(
			err, EBUSY,
			"%s: token %d goes, and then it can't be shown to open: give another, "
			"or a key",
			header->name, request->unbound);
	if (opened >= 0 && slots >> opened & 1)
		return error_set(err, EBUSY,
				 "%s: key slot %d, which this key opens, goes with token %d: give "
				 "one that stays",
				 header->name, opened, request->unbound);
	if (left == 0 && !request->force)
		return error_set(err, EBUSY,
				 "%s: with token %d the last key slot would go: without it nothing "
				 "opens the volume any more (--force removes it)",
				 header->name, request->unbound);
	return 0;
}

static int unbind(struct header *header, const struct request *request, struct error *err)
{
	const struct luks_tokens tokens = tokens_of(request);
	struct header_proof proof = existing_key(request, &tokens);
	struct volume_key volume_key = { 0 };
	uint32_t slots;
	int ret = 0;

	proof.slot = -1;
	if (needs_key(request))
		proof.slot = ret = unlock_slot(header, request, &request->key, &volume_key, err);
	forget_volume_key(&volume_key);
	if (ret >= 0)
		ret = binding_slots(header, request->unbound, &slots, err);
	if (ret == 0)
		ret = check_left(header, request, slots, proof.slot, err);
	if (ret == 0)
		ret = binding_remove(header, request->unbound, slots, err);
	if (ret == 0)
		ret = header_write_back(header, HEADER_REMOVED, needs_key(request) ? &proof : NULL,
					err);
	if (ret == 0)
		printf("token %d removed\n", request->unbound);
	return ret;
}

static const char *take_binding(struct request *request, int count, char **operands)
{
	return binding_take(request->binding, count, operands);
}

static const char *take_unbinding(struct request *request, int count, char **operands)
{
	uint64_t token;

	if (count != 1 || !parse_number(operands[0], LUKS_MAX_TOKEN, &token))
		return "unbind: the number of a token, and a locator";
	request->unbound = token;
	return NULL;
}

static const struct action actions[] = {
	{ .name = "add", .run = add_key, .writes = true, .needs_new_key = true },
	{ .name = "remove", .run = remove_slot, .writes = true },
	{ .name = "change",
	  .run = change,
	  .writes = true,
	  .needs_new_key = true,
	  .changes_slot = true },
	{ .name = "dump", .run = key_dump, .needs_file = true },
	{ .name = "list", .run = list },
	{ .name = "bind", .run = bind_to, .writes = true, .take = take_binding },
	{ .name = "unbind", .run = unbind, .writes = true, .take = take_unbinding },
};

/* ---- running one ---- */

/* Opens it, and looks whether it can be written. */
static int open_header(struct header *header, const struct request *request, struct error *err)
{
	int ret = header_open(header, !request->action->writes, err);

	if (ret == 0 && request->action->writes && !(header->info.can & NDIO_CAN_WRITE))
		ret = error_set(err, EROFS, "%s: it can only be read", header->name);
	return ret;
}

static int load(struct header *header, const struct request *request, struct error *err)
{
	int ret = header_load(header, err);

	if (ret == 0 && request->action->writes && !request->header && header->data_elsewhere)
		ret = error_set(err, EINVAL,
				"%s: this is a detached LUKS header: its data are "
				"elsewhere: give it with --header, and the disk that has them",
				header->name);
	if (ret == 0 && (request->action->writes || request->action->needs_file))
		ret = header_load_areas(header, err);
	return ret;
}

static bool asks_for_key(const struct request *request)
{
	return needs_key(request) && !key_source_given(&request->key_source);
}

static bool asks_for_new_key(const struct request *request)
{
	return request->action->needs_new_key && !key_source_given(&request->new_key_source);
}

/* Before the header is locked: whoever holds that waits for no person, and asks no server for a key. */
static bool tries_key(const struct request *request)
{
	return asks_for_key(request) || asks_for_new_key(request) || request->how.by_tokens ||
	       request->binding->kind;
}

static int check_any_active(struct header *header, struct error *err)
{
	for (int slot = 0; slot < crypt_keyslot_max(crypt_get_type(header->memfd.cd)); slot++)
		if (is_active(header, slot))
			return 0;
	return error_set(err, EPERM, "%s: the LUKS header has no key slot that is in use",
			 header->name);
}

/* Nobody should have to type passphrases for a volume that can't be opened anyway. What was read
 * stays, so that they can be tried. So does the connection to a server, which may take only one; but
 * not a local image, which others may use until it is written to. */
static int look_at_header(struct header *header, const struct request *request, struct error *err)
{
	int lock, ret = header_lock(header->name, &lock, err);

	if (ret < 0)
		return ret;
	ret = open_header(header, request, err);
	if (ret == 0)
		ret = load(header, request, err);
	if (ret == 0 && needs_key(request) && !request->how.volume_key)
		ret = check_any_active(header, err);
	if (!header->info.nbd)
		header_let_go(header);
	close(lock);
	return ret;
}

/* A key that is tried before the new one is asked for. */
struct trial {
	struct header *header;
	struct request *request;
};

static int try_header_key(void *opaque, const struct key *key, struct error *err)
{
	struct trial *trial = opaque;
	struct volume_key volume_key = { 0 };
	int slot = unlock_slot(trial->header, trial->request, key, &volume_key, err);

	if (slot >= 0 && !key->data)
		trial->request->by_token = volume_key;
	else
		forget_volume_key(&volume_key);
	if (slot >= 0)
		trial->request->opens = slot;
	return slot < 0 ? slot : 0;
}

static int read_header_key(struct header *header, struct request *request, struct error *err)
{
	struct trial trial = { header, request };
	char prompt[256];

	snprintf(prompt, sizeof(prompt), "Passphrase for %s", request->locator);
	if (!tries_key(request))
		return key_read(&request->key_source, prompt, false, &request->key, err);
	return key_try(&request->key_source, &request->how, prompt, &request->key, try_header_key,
		       &trial, err);
}

/* What is written may not be a key. */
static int check_key_names(const struct request *request, struct error *err)
{
	const char *header = header_locator(request);
	int ret = locator_kind(header, err);

	if (ret < 0 || !request->action->writes)
		return ret < 0 ? ret : 0;
	ret = clash_refuse_key(header, &request->key_source, err);
	if (ret == 0)
		ret = clash_refuse_key(header, &request->new_key_source, err);
	return ret;
}

static int read_keys(struct header *header, struct request *request, struct error *err)
{
	char prompt[256];
	int ret = check_key_names(request, err);

	if (ret == 0 && tries_key(request))
		ret = look_at_header(header, request, err);
	if (ret == 0 && needs_key(request))
		ret = read_header_key(header, request, err);
	if (ret == 0 && request->binding->kind)
		ret = binding_prepare(request->binding, err);
	if (ret < 0 || !request->action->needs_new_key)
		return ret;
	snprintf(prompt, sizeof(prompt), "New passphrase for %s", request->locator);
	return key_read(&request->new_key_source, prompt, true, &request->new_key, err);
}

/* What was read before the header was locked may be old by now. */
static int load_again(struct header *header, const struct request *request, struct error *err)
{
	bool was_open = header->volume;
	int ret;

	header_forget(header);
	ret = was_open ? 0 : open_header(header, request, err);
	if (ret == 0)
		ret = load(header, request, err);
	if (!was_open || ret != -ENOTCONN)
		return ret;
	/* Somebody took his time to type. */
	header_let_go(header);
	header_forget(header);
	ret = open_header(header, request, err);
	return ret < 0 ? ret : load(header, request, err);
}

static int run_locked(struct header *header, const struct request *request, struct error *err)
{
	int lock = -1;
	int ret = request->action->writes ? header_lock(header->name, &lock, err) : 0;

	if (ret < 0)
		return ret;
	ret = load_again(header, request, err);
	if (ret == 0 && (needs_key(request) || request->action->needs_new_key))
		key_tell_deriving();
	if (ret == 0)
		ret = request->action->run(header, request, err);
	header_close(header);
	if (lock >= 0)
		close(lock);
	return ret;
}

static int change_keys(struct request *request)
{
	struct header header;
	struct error err = { 0 };
	int ret;

	header_init(&header, header_locator(request));
	header.no_lock = request->no_lock;
	header.answer_timeout = request->answer_timeout;
	ret = header_seal_open(&header, request->how.trust, !request->action->writes, &err);
	if (ret == 0)
		ret = read_keys(&header, request, &err);
	if (ret == 0)
		ret = run_locked(&header, request, &err);
	header_close(&header);
	key_clear(&request->key);
	key_clear(&request->new_key);
	forget_volume_key(&request->by_token);
	key_clear(request->pin);
	binding_clear(request->binding);
	if (ret < 0)
		cmd_error("%s", err.text);
	fflush(stdout);
	deferral_end();
	return ret < 0 ? CMD_FAILED : CMD_OK;
}

/* ---- the command line ---- */

static const char *take_slot(struct request *request, const char *value)
{
	uint64_t slot;

	if (!parse_number(value, UNLOCK_MAX_SLOT, &slot))
		return "--slot takes a number from 0 to 31";
	request->slot = slot;
	return NULL;
}

/* NULL, or what is wrong. */
static const char *key_option(void *opaque, int option, const char *value)
{
	struct request *request = opaque;
	bool new = option &OPEN_OTHER;
	const struct open_options open = {
		.key = new ? &request->new_key_source : &request->key_source,
		.how = &request->how,
		.header = &request->header,
		.answer_timeout = &request->answer_timeout,
		.twice = new ? "a new key comes from one --new-key-file or --new-key-fd" :
			       "an existing key comes from one --key-file or --key-fd",
	};

	switch (option) {
	case OPT_SLOT:
		return take_slot(request, value);
	case OPT_FORCE:
		request->force = true;
		return NULL;
	case OPT_THUMBPRINT:
		request->binding->thumbprint = value;
		return NULL;
	case OPT_TRUST_KEYS:
		request->binding->trust = true;
		return NULL;
	case OPT_PCRS:
		request->binding->pcrs = value;
		return NULL;
	case OPT_PIN:
		request->binding->with_pin = true;
		return NULL;
	case OPT_NO_LOCK_IMAGE:
		request->no_lock = true;
		return NULL;
	default:
		return option < KDF_END ? kdf_option(&request->kdf, option, value) :
					  open_option(&open, option, value);
	}
}

static const char *check_key_request(const struct request *request)
{
	if (key_sources_clash(&request->key_source, &request->new_key_source))
		return "the existing and the new key can't come from the same descriptor";
	if (key_source_given(&request->new_key_source) && !request->action->needs_new_key)
		return "a new key is only for add and change";
	if (request->force && request->action->run != remove_slot &&
	    request->action->run != unbind && request->action->run != key_dump)
		return "--force is only for remove, unbind and dump";
	if (request->action->needs_file && request->slot != CRYPT_ANY_SLOT)
		return "dump: --key-slot says which slot the key opens";
	if (request->how.volume_key && request->action->run != add_key &&
	    request->action->run != key_dump)
		return "--volume-key-file is only for add and dump: it opens no key slot";
	if (kdf_given(&request->kdf) && !request->action->needs_new_key && !request->binding->kind)
		return "how a key is derived is only for add, change and bind";
	if ((request->binding->thumbprint || request->binding->trust || request->binding->pcrs ||
	     request->binding->with_pin) &&
	    !request->binding->kind)
		return "--thumbprint, --trust-keys, --pcrs and --pin are only for bind";
	if (request->slot != CRYPT_ANY_SLOT && request->action->run == unbind)
		return "unbind is about a token, not a key slot";
	if (request->how.by_tokens && request->action->changes_slot)
		return "--token isn't for change: what a token tells is changed where it is held";
	if (!request->action->writes && !request->action->needs_file &&
	    (key_source_given(&request->key_source) || request->how.by_tokens ||
	     request->slot != CRYPT_ANY_SLOT))
		return "list shows all slots, and needs no key";
	if (unlock_by_one_slot(&request->how) &&
	    (request->action->run == list || request->action->changes_slot))
		return "--key-slot isn't for change and list";
	if (kdf_check(&request->kdf))
		return kdf_check(&request->kdf);
	if (key_source_check(&request->key_source))
		return key_source_check(&request->key_source);
	return key_source_check(&request->new_key_source);
}

static const char *take_operands(struct request *request, int count, char **operands)
{
	const char *wrong = NULL;

	if (count < 1)
		return "add, remove, change, dump, list, bind or unbind?";
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(operands[0], actions[i].name) == 0)
			request->action = &actions[i];
	if (!request->action)
		return "it is add, remove, change, dump, list, bind or unbind";
	if (request->action->needs_file && count != 3)
		return "it takes a locator, and the file for the key";
	if (count < 2 || (count > 2 && !request->action->take && !request->action->needs_file))
		return "it takes one locator";
	request->locator = operands[request->action->needs_file ? 1 : count - 1];
	request->file = request->action->needs_file ? operands[2] : NULL;
	if (request->action->take)
		wrong = request->action->take(request, count - 2, operands + 1);
	return wrong ?: check_key_request(request);
}

static const struct option options[] = { OPEN_OPTIONS_KEY("", 0),
					 OPEN_OPTIONS_KEY("new-", OPEN_OTHER),
					 { "slot", required_argument, NULL, OPT_SLOT },
					 OPEN_OPTION_VOLUME_KEY("volume-key-file", 0),
					 OPEN_OPTION_SLOT("key-slot", 0),
					 OPEN_OPTION_TOKEN("token", 0),
					 { "thumbprint", required_argument, NULL, OPT_THUMBPRINT },
					 { "trust-keys", no_argument, NULL, OPT_TRUST_KEYS },
					 { "pcrs", required_argument, NULL, OPT_PCRS },
					 { "pin", no_argument, NULL, OPT_PIN },
					 OPEN_OPTION_MAX_KDF_TIME,
					 OPEN_OPTION_HEADER("header", 0),
					 OPEN_OPTION_TRUST("trust", 0),
					 { "force", no_argument, NULL, OPT_FORCE },
					 { "no-lock-image", no_argument, NULL, OPT_NO_LOCK_IMAGE },
					 KDF_LONG_OPTIONS,
					 OPEN_OPTION_ANSWER_TIMEOUT,
					 CMD_OPTIONS_END };

int cmd_key(int argc, char **argv)
{
	struct binding binding = { .kind = NULL };
	struct key pin = { 0 };
	struct request request = {
		.self = argv[0],
		.pin = &pin,
		.binding = &binding,
		.unbound = LUKS_ANY_TOKEN,
		.slot = CRYPT_ANY_SLOT,
		.opens = CRYPT_ANY_SLOT,
		.how = UNLOCK_DEFAULT,
		.key_source = KEY_SOURCE_NONE,
		.new_key_source = KEY_SOURCE_NONE,
	};
	int status = cmd_options(argc, argv, help_key, options, key_option, &request);
	const char *wrong;

	if (status != CMD_GO_ON)
		return status;
	wrong = take_operands(&request, argc - optind, argv + optind);
	binding.wait = request.answer_timeout;
	return wrong ? cmd_usage(argv[0], "%s", wrong) : change_keys(&request);
}
