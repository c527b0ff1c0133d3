#include "header/binding.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libcryptsetup.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/filter.h"
#include "base/program-find.h"
#include "luks/luks-json.h"
#include "luks/luks-tokens.h"
#include "luks/token-keyring.h"
#include "terminal/key-input.h"
#include "terminal/pin-input.h"

#define RANDOM_BYTES 32                             /* as much as the strongest cipher's key has */
#define PASS_LEN     (4 * ((RANDOM_BYTES + 2) / 3)) /* in base64 */
#define CONFIG_ROOM  4096
#define JWE_PARTS    5

/* A way to hold a passphrase. */
struct binding_kind {
	const char *name;
	int operands;
	int (*prepare)(struct binding *binding, struct error *err);
	int (*add)(struct binding *binding, struct header *header, const void *volume_key,
		   size_t key_len, const struct kdf_options *kdf, int slot, struct error *err);
};

static unsigned wait_ms(const struct binding *binding)
{
	return 1000 * (binding->wait ? binding->wait : LUKS_TOKEN_WAIT);
}

/* Text, since clevis' users may want to see it. */
static int make_passphrase(struct key *pass, struct error *err)
{
	uint8_t bytes[RANDOM_BYTES];
	int ret = key_make(pass, PASS_LEN + 1, err);

	if (ret == 0 && RAND_priv_bytes(bytes, sizeof(bytes)) != 1)
		ret = error_set(err, EIO, "no random bytes for a passphrase");
	if (ret == 0)
		pass->len = EVP_EncodeBlock(pass->data, bytes, sizeof(bytes));
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return ret;
}

/* ---- clevis ---- */

/* The flattened form of a JWE, of its compact one, which is cut. */
static struct json_object *flatten_jwe(char *jwe)
{
	static const char *const names[JWE_PARTS] = { "protected", "encrypted_key", "iv",
						      "ciphertext", "tag" };
	struct json_object *object = json_object_new_object();
	int parts = 0;

	for (char *part; parts < JWE_PARTS && (part = strsep(&jwe, ".")); parts++)
		json_object_object_add(object, names[parts], json_object_new_string(part));
	if (parts == JWE_PARTS && !jwe)
		return object;
	json_object_put(object);
	return NULL;
}

/* said: FILTER_SAID bytes, or NULL. */
static long encrypt(const struct binding *binding, const char *pin, const char *config, bool trust,
		    char *jwe, char *said, struct error *err)
{
	char path[PATH_MAX];
	const struct filter filter = {
		.argv = (const char *const[]){ path, "encrypt", pin, config, trust ? "-y" : NULL,
					       NULL },
		.in = binding->pass.data,
		.in_len = binding->pass.len,
		.out = jwe,
		.out_size = FILTER_IN_MAX,
		.ms = wait_ms(binding),
		.said = said,
	};
	int ret = program_find("clevis", "clevis", path, err);

	return ret < 0 ? ret : filter_run(&filter, err);
}

static int bind_by_clevis(struct binding *binding, const char *pin, const char *config, bool trust,
			  struct error *err)
{
	char *jwe = malloc(FILTER_IN_MAX + 1);
	struct error why = { "out of memory" };
	struct json_object *flat = NULL;
	long n = jwe ? encrypt(binding, pin, config, trust, jwe, NULL, &why) : -ENOMEM;

	if (n >= 0) {
		jwe[n] = '\0';
		jwe[strcspn(jwe, "\n")] = '\0';
		flat = flatten_jwe(jwe);
		if (!flat)
			n = error_set(&why, EPROTO, "clevis has made something else than a JWE");
	}
	free(jwe);
	if (n < 0)
		return error_set(err, -n, "%s: %s", pin, why.text);
	binding->token = json_object_new_object();
	json_object_object_add(binding->token, "type", json_object_new_string("clevis"));
	json_object_object_add(binding->token, "jwe", flat);
	return 0;
}

/* The first one in what clevis says of a server's signing keys: a line with nothing but a hash of SHA-256. */
static const char *find_thumbprint(char *said)
{
	char *line;

	while ((line = strsep(&said, "\n")))
		if (strlen(line) == 43 &&
		    strspn(line, "abcdefghijklmnopqrstuvwxyz"
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == 43)
			return line;
	return NULL;
}

static int confirm_thumbprint(const char *url, const char *thumbprint, struct error *err)
{
	char question[512];
	int ret;

	snprintf(question, sizeof(question),
		 "The Tang server %.200s signs with the key %s. Is that its own? Type YES:", url,
		 thumbprint);
	ret = terminal_confirm(question);
	if (ret > 0)
		return 0;
	return error_set(err, EACCES,
			 "%s: it signs with the key %s: if that is its own, say so "
			 "(--thumbprint), or trust whatever it has (--trust-keys)",
			 url, thumbprint);
}

/* Clevis would ask itself, at a terminal that it doesn't have here. */
static int learn_thumbprint(struct binding *binding, const char *config, char thumbprint[64],
			    struct error *err)
{
	char *jwe = malloc(FILTER_IN_MAX), *said = calloc(1, FILTER_SAID);
	struct error why = { "out of memory" };
	const char *found = NULL;
	int ret = -ENOMEM;

	if (jwe && said) {
		ret = encrypt(binding, "tang", config, false, jwe, said, &why);
		found = find_thumbprint(said);
	}
	if (found)
		snprintf(thumbprint, 64, "%s", found);
	free(jwe);
	free(said);
	if (found)
		return confirm_thumbprint(binding->what, thumbprint, err);
	return ret < 0 ? error_set(err, -ret, "%s: %s", binding->what, why.text) :
			 error_set(err, EPROTO, "%s: it has no key to trust", binding->what);
}

static void tang_config(const char *url, const char *thumbprint, char config[CONFIG_ROOM])
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "url", json_object_new_string(url));
	if (thumbprint)
		json_object_object_add(object, "thp", json_object_new_string(thumbprint));
	snprintf(config, CONFIG_ROOM, "%s", json_object_to_json_string(object));
	json_object_put(object);
}

static int prepare_tang(struct binding *binding, struct error *err)
{
	char config[CONFIG_ROOM], thumbprint[64];
	int ret = make_passphrase(&binding->pass, err);

	tang_config(binding->what, binding->thumbprint, config);
	if (ret == 0 && !binding->thumbprint && !binding->trust) {
		ret = learn_thumbprint(binding, config, thumbprint, err);
		tang_config(binding->what, ret == 0 ? thumbprint : NULL, config);
	}
	return ret < 0 ? ret : bind_by_clevis(binding, "tang", config, binding->trust, err);
}

static int prepare_clevis(struct binding *binding, struct error *err)
{
	int ret = make_passphrase(&binding->pass, err);

	return ret < 0 ?
		       ret :
		       bind_by_clevis(binding, binding->what, binding->config, binding->trust, err);
}

/* ---- the kernel's keyring ---- */

static int prepare_keyring(struct binding *binding, struct error *err)
{
	struct error why;
	int ret;

	binding->token = json_object_new_object();
	json_object_object_add(binding->token, "type", json_object_new_string("luks2-keyring"));
	json_object_object_add(binding->token, "key_description",
			       json_object_new_string(binding->what));
	ret = token_keyring_open(binding->token, &binding->pass, &why);
	return ret < 0 ? error_set(err, -ret, "%s: %s", binding->what, why.text) : 0;
}

/* ---- adding ---- */

static int fail_binding(const struct header *header, const char *step, int ret, struct error *err)
{
	return error_set(err, -ret, "%s: %s: %s", header->name, step,
			 luks_memfd_reason(&header->memfd, ret));
}

/* Nobody guesses it, so deriving a key from it may be as cheap as can be: as clevis and systemd have it. */
static const struct kdf_options cheapest = { .type = CRYPT_KDF_PBKDF2, .iterations = 1000 };

static int add_slot_of(struct header *header, const struct key *pass, const void *volume_key,
		       size_t key_len, const struct kdf_options *kdf, int slot, struct error *err)
{
	int ret = kdf_apply(kdf, header, CRYPT_LUKS2, err);

	if (ret < 0)
		return ret;
	ret = crypt_keyslot_add_by_volume_key(header->memfd.cd, slot, volume_key, key_len,
					      pass->data, pass->len);
	return ret < 0 ? fail_binding(header, "filling a free key slot", ret, err) : ret;
}

static int add_token(struct header *header, struct json_object *token, int slot, struct error *err)
{
	struct json_object *slots = json_object_new_array();
	char number[12];
	int ret;

	snprintf(number, sizeof(number), "%d", slot);
	json_object_array_add(slots, json_object_new_string(number));
	json_object_object_add(token, "keyslots", slots);
	ret = crypt_token_json_set(header->memfd.cd, CRYPT_ANY_TOKEN,
				   json_object_to_json_string_ext(token, JSON_C_TO_STRING_PLAIN));
	return ret < 0 ? fail_binding(header, "adding the token", ret, err) : ret;
}

static int add_made(struct binding *binding, struct header *header, const void *volume_key,
		    size_t key_len, const struct kdf_options *kdf, int slot, struct error *err)
{
	int ret = add_slot_of(header, &binding->pass, volume_key, key_len,
			      kdf_given(kdf) ? kdf : &cheapest, slot, err);

	return ret < 0 ? ret : add_token(header, binding->token, ret, err);
}

/* A passphrase of people's, which may open a slot already. */
static int add_keyring(struct binding *binding, struct header *header, const void *volume_key,
		       size_t key_len, const struct kdf_options *kdf, int slot, struct error *err)
{
	const struct luks_pass pass = {
		.data = binding->pass.data,
		.len = binding->pass.len,
		.slot = LUKS_ANY_SLOT,
	};
	void *key;
	size_t len;
	int ret = slot == CRYPT_ANY_SLOT ?
			  luks_slots_open(&header->memfd, &pass, NULL, &key, &len, NULL) :
			  -ENOENT;

	if (ret >= 0)
		secret_free(key, len);
	else
		ret = add_slot_of(header, &binding->pass, volume_key, key_len, kdf, slot, err);
	return ret < 0 ? ret : add_token(header, binding->token, ret, err);
}

/* ---- what systemd-cryptenroll knows: this machine's TPM, and smart cards ---- */

static int find_enroller(char path[PATH_MAX], struct error *err)
{
	return program_find("systemd-cryptenroll", "systemd-cryptsetup (Debian 12: systemd)", path,
			    err);
}

static int prepare_pin(struct binding *binding, const char *token, bool is_new, struct error *err)
{
	int ret = pin_input_first(token, is_new, &binding->pin, err);

	if (ret == 0 && memchr(binding->pin.data, '\0', binding->pin.len))
		ret = error_set(err, EINVAL, "a PIN has no NUL in it");
	return ret;
}

int binding_pin(void *opaque, const char *token, struct key *pin, struct error *err)
{
	const struct binding *binding = opaque;

	if (!binding->pin.data || err->text[0])
		return pin_input(NULL, token, pin, err);
	return key_set(pin, binding->pin.data, binding->pin.len, err);
}

/* As systemd-cryptenroll takes it: in its environment, where it erases it. */
static int make_pin_variable(const struct binding *binding, struct key *variable, struct error *err)
{
	const char *name = binding->with_pin ? "NEWPIN=" : "PIN=";
	size_t len = strlen(name);
	int ret = binding->pin.data ? key_make(variable, len + binding->pin.len + 1, err) : 0;
	char *text = variable->data;

	if (ret < 0 || !text)
		return ret;
	memcpy(text, name, len);
	memcpy(text + len, binding->pin.data, binding->pin.len);
	text[len + binding->pin.len] = '\0';
	return 0;
}

static int prepare_tpm2(struct binding *binding, struct error *err)
{
	char path[PATH_MAX];
	int ret = find_enroller(path, err);

	return ret < 0 || !binding->with_pin ?
		       ret :
		       prepare_pin(binding, "this TPM (systemd-tpm2)", true, err);
}

static int prepare_pkcs11(struct binding *binding, struct error *err)
{
	char path[PATH_MAX], token[512];
	int ret = find_enroller(path, err);

	snprintf(token, sizeof(token), "%.400s (systemd-pkcs11)", binding->what);
	return ret < 0 ? ret : prepare_pin(binding, token, false, err);
}

/* variable: of its environment, or NULL. */
static long run_enroller(const struct binding *binding, int fd, const struct key *pass,
			 const char *variable, struct error *err)
{
	char path[PATH_MAX], pcrs[128], uri[CONFIG_ROOM], said[256];
	const char *argv[8] = { path, "--unlock-key-file=/proc/self/fd/0" };
	const struct filter filter = {
		.argv = argv,
		.in = pass->data,
		.in_len = pass->len,
		.out = said,
		.out_size = sizeof(said),
		.ms = wait_ms(binding),
		.fd = fd,
		.env = variable,
	};
	int n = 2, ret = find_enroller(path, err);

	snprintf(pcrs, sizeof(pcrs), "--tpm2-pcrs=%s", binding->pcrs ?: "");
	snprintf(uri, sizeof(uri), "--pkcs11-token-uri=%s", binding->what ?: "");
	argv[n++] = binding->what ? uri : "--tpm2-device=auto";
	if (binding->pcrs)
		argv[n++] = pcrs;
	if (binding->with_pin)
		argv[n++] = "--tpm2-with-pin=yes";
	argv[n] = "/proc/self/fd/3";
	return ret < 0 ? ret : filter_run(&filter, err);
}

static int enroll(const struct binding *binding, const struct header *header,
		  const struct key *pass, struct error *err)
{
	struct key variable = { 0 };
	struct error why;
	long ret = make_pin_variable(binding, &variable, &why);

	if (ret == 0)
		ret = run_enroller(binding, header->memfd.fd, pass, variable.data, &why);
	key_clear(&variable);
	return ret < 0 ?
		       error_set(err, -ret, "%s: systemd-cryptenroll: %s", header->name, why.text) :
		       0;
}

/* The numbers of the tokens that there are, a bit each. */
static int read_numbers(struct header *header, uint32_t *numbers, struct error *err)
{
	struct json_object *json;
	int ret = luks_json_load(&header->memfd, &json, err);

	*numbers = 0;
	for (int number = 0; number <= LUKS_MAX_TOKEN && ret == 0; number++)
		if (luks_json_numbered(luks_json_member(json, "tokens"), number))
			*numbers |= UINT32_C(1) << number;
	if (ret == 0)
		json_object_put(json);
	return ret;
}

/* systemd-cryptenroll wants a key that opens the volume, and not the volume key: so it has one for a while, in
 * the memfd. */
static int add_enrolled(struct binding *binding, struct header *header, const void *volume_key,
			size_t key_len, const struct kdf_options *kdf, int slot, struct error *err)
{
	uint32_t before, after = 0;
	int ret = make_passphrase(&binding->pass, err), other = -1;

	(void)kdf;
	if (ret == 0 && slot != CRYPT_ANY_SLOT)
		ret = error_set(err, ENOTSUP, "%s: which key slot it is, systemd-cryptenroll says",
				header->name);
	if (ret == 0)
		ret = read_numbers(header, &before, err);
	if (ret == 0)
		ret = other = add_slot_of(header, &binding->pass, volume_key, key_len, &cheapest,
					  CRYPT_ANY_SLOT, err);
	if (ret >= 0)
		ret = enroll(binding, header, &binding->pass, err);
	if (ret >= 0)
		ret = luks_memfd_load(&header->memfd, err);
	if (ret >= 0 && crypt_keyslot_destroy(header->memfd.cd, other) < 0)
		ret = fail_binding(header, "removing a key slot", -EIO, err);
	if (ret >= 0)
		ret = read_numbers(header, &after, err);
	if (ret < 0)
		return ret;
	after &= ~before;
	return after ? __builtin_ctz(after) :
		       error_set(err, EIO, "%s: systemd-cryptenroll has made no token",
				 header->name);
}

/* ---- all of them ---- */

static const struct binding_kind kinds[] = {
	{ "tang", 1, prepare_tang, add_made },
	{ "tpm2", 0, prepare_tpm2, add_enrolled },
	{ "pkcs11", 1, prepare_pkcs11, add_enrolled },
	{ "keyring", 1, prepare_keyring, add_keyring },
	{ "clevis", 2, prepare_clevis, add_made },
};

static const char *check_binding(const struct binding *binding)
{
	bool tang = strcmp(binding->kind->name, "tang") == 0;
	bool clevis = strcmp(binding->kind->name, "clevis") == 0;

	if (binding->thumbprint && !tang)
		return "--thumbprint is for tang (for clevis it is in its configuration)";
	if (binding->trust && !tang && !clevis)
		return "--trust-keys is for tang and clevis";
	if (binding->trust && binding->thumbprint)
		return "--thumbprint or --trust-keys, not both";
	if (binding->pcrs && strcmp(binding->kind->name, "tpm2") != 0)
		return "--pcrs is for tpm2";
	if (binding->with_pin && strcmp(binding->kind->name, "tpm2") != 0)
		return "--pin is for tpm2 (a pkcs11 token has its own)";
	return NULL;
}

const char *binding_take(struct binding *binding, int count, char **operands)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (count < 1 || strcmp(operands[0], kinds[i].name) != 0)
			continue;
		if (count != 1 + kinds[i].operands)
			break;
		binding->kind = &kinds[i];
		binding->what = kinds[i].operands > 0 ? operands[1] : NULL;
		binding->config = kinds[i].operands > 1 ? operands[2] : NULL;
		return check_binding(binding);
	}
	return "bind: to tang URL, tpm2, pkcs11 URI, keyring DESCRIPTION or clevis PIN CONFIG, and a "
	       "locator";
}

int binding_prepare(struct binding *binding, struct error *err)
{
	return binding->kind->prepare(binding, err);
}

void binding_clear(struct binding *binding)
{
	key_clear(&binding->pass);
	key_clear(&binding->pin);
	json_object_put(binding->token);
	binding->token = NULL;
}

int binding_add(struct binding *binding, struct header *header, const void *volume_key,
		size_t key_len, const struct kdf_options *kdf, int slot, struct error *err)
{
	if (header->version != 2)
		return error_set(err, ENOTSUP, "%s: LUKS1 headers have no tokens", header->name);
	return binding->kind->add(binding, header, volume_key, key_len, kdf, slot, err);
}

/* ---- unbinding ---- */

static uint32_t slots_alone(struct json_object *tokens, int token)
{
	struct json_object *it = luks_json_numbered(tokens, token);
	uint32_t slots = luks_token_slots(it);

	if (strcmp(luks_json_text(luks_json_member(it, "type")), "luks2-keyring") == 0)
		return 0;
	for (int other = 0; other <= LUKS_MAX_TOKEN; other++)
		if (other != token && luks_json_numbered(tokens, other))
			slots &= ~luks_token_slots(luks_json_numbered(tokens, other));
	return slots;
}

int binding_slots(struct header *header, int token, uint32_t *slots, struct error *err)
{
	struct json_object *json, *tokens;
	int ret = header->version == 2 ?
			  luks_json_load(&header->memfd, &json, err) :
			  error_set(err, ENOTSUP, "%s: LUKS1 headers have no tokens", header->name);

	if (ret < 0)
		return ret;
	tokens = luks_json_member(json, "tokens");
	if (luks_json_numbered(tokens, token))
		*slots = slots_alone(tokens, token);
	else
		ret = error_set(err, ENOENT, "%s: the LUKS header has no token %d", header->name,
				token);
	json_object_put(json);
	return ret;
}

int binding_remove(struct header *header, int token, uint32_t slots, struct error *err)
{
	struct crypt_device *cd = header->memfd.cd;
	int ret = crypt_token_json_set(cd, token, NULL);

	if (ret < 0)
		return fail_binding(header, "removing the token", ret, err);
	for (int slot = 0; slot < 32; slot++) {
		if (!(slots >> slot & 1) || crypt_keyslot_status(cd, slot) < CRYPT_SLOT_ACTIVE)
			continue;
		ret = crypt_keyslot_destroy(cd, slot);
		if (ret < 0)
			return fail_binding(header, "removing its key slot", ret, err);
	}
	return 0;
}
