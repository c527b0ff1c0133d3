/* handshake:
 *
 *     FLAGS -> OPTION <-> DATA    -> TLS -> OPTION
 *                     <-> REFUSED -> OPENING -> TRANSMISSION, or OPTION if it can't be opened
 *                                 -> END
 *
 * An option is looked at when it is whole: only then is it known that it isn't cut short. What can
 * be told by its head alone (nobody knows it, it needs TLS, it is too long) is told by that, and
 * its data are passed over.
 *
 * It is answered at once and whole, as the output is empty then. Only a list of exports may have no
 * room; it goes on whenever the output is empty again, and no option is taken meanwhile. */
#include "handshake.h"

#include <assert.h>
#include <errno.h>

#include "base/utf8.h"
#include "nbd/fence.h"

#define FLAGS_LEN  4
#define OPTION_LEN 16 /* magic, option, length */
#define REPLY_LEN  20 /* magic, option, type, length */

#define PASSED_MAX (1024 * 1024) /* bytes of an option that are passed over */

#define BASE_NAMESPACE  "base:"
#define BASE_ALLOCATION "base:allocation"
#define CONTEXT_ID      1

/* Why an option is refused; and if it can't be answered, why the connection ends. */
struct handshake_fault {
	uint32_t reply; /* NBD_REP_ERR_* */
	const char *text;
};

static const struct handshake_fault
	unknown_option = { NBD_REP_ERR_UNSUP, "this server doesn't know the option" },
	needs_tls = { NBD_REP_ERR_TLS_REQD, "this server wants TLS first" },
	no_tls = { NBD_REP_ERR_POLICY, "this server has no TLS" },
	twice_tls = { NBD_REP_ERR_INVALID, "the connection has TLS already" },
	too_long = { NBD_REP_ERR_TOO_BIG, "the option's data are too long" },
	has_data = { NBD_REP_ERR_INVALID, "the option has data where none belong" },
	long_text = { NBD_REP_ERR_TOO_BIG, "a name or query has more than 4096 bytes" },
	no_text = { NBD_REP_ERR_INVALID, "a name or query isn't UTF-8" },
	misfit = { NBD_REP_ERR_INVALID, "the option's data don't have the length that they say" },
	unknown_export = { NBD_REP_ERR_UNKNOWN, "this server has no export of that name" },
	needs_structured = { NBD_REP_ERR_INVALID, "contexts need structured replies first" },
	has_extended = { NBD_REP_ERR_EXT_HEADER_REQD, "extended headers were agreed to" };

/* ---- output ---- */

static bool has_output(const struct handshake *hs)
{
	return hs->output_start < hs->output_end;
}

static size_t output_room(const struct handshake *hs)
{
	return sizeof(hs->output) - hs->output_end;
}

static uint8_t *extend_output(struct handshake *hs, size_t len)
{
	uint8_t *at = hs->output + hs->output_end;

	assert(len <= output_room(hs));
	hs->output_end += len;
	return at;
}

/* The head of a reply to the option at hand; returns where its len bytes are to be. */
static uint8_t *put_reply(struct handshake *hs, uint32_t type, size_t len)
{
	uint8_t *at = extend_output(hs, REPLY_LEN + len);

	at = put_be64(at, NBD_REP_MAGIC);
	at = put_be32(at, hs->option);
	at = put_be32(at, type);
	return put_be32(at, len);
}

static void acknowledge(struct handshake *hs)
{
	put_reply(hs, NBD_REP_ACK, 0);
}

/* Nothing that is still to be sent is of use to who broke the protocol. */
static void end(struct handshake *hs, const char *why)
{
	hs->state = HANDSHAKE_AT_END;
	hs->why = why;
	hs->output_start = hs->output_end = 0;
}

static void put_error(struct handshake *hs, uint32_t reply, const char *text)
{
	size_t len = utf8_fit(text, NBD_MAX_STRING);

	memcpy(put_reply(hs, reply, len), text, len);
}

/* NBD_OPT_EXPORT_NAME has no reply that could say no. */
static void refuse_option(struct handshake *hs, const struct handshake_fault *fault)
{
	if (hs->option == NBD_OPT_EXPORT_NAME)
		end(hs, fault->text);
	else
		put_error(hs, fault->reply, fault->text);
}

/* ---- an option's data ---- */

struct reader {
	const uint8_t *at;
	size_t left;
};

static struct reader option_data(const struct handshake *hs)
{
	return (struct reader){ hs->input, hs->data_len };
}

static const uint8_t *read_bytes(struct reader *reader, size_t len)
{
	const uint8_t *at = reader->at;

	if (len > reader->left)
		return NULL;
	reader->at += len;
	reader->left -= len;
	return at;
}

/* Text of len bytes. */
static const struct handshake_fault *read_text(struct reader *reader, size_t len,
					       const uint8_t **text)
{
	if (len > NBD_MAX_STRING)
		return &long_text;
	*text = read_bytes(reader, len);
	if (!*text)
		return &misfit;
	return utf8_is_text(*text, len) ? NULL : &no_text;
}

/* The same, with its length in front. */
static const struct handshake_fault *read_string(struct reader *reader, const uint8_t **text,
						 size_t *len)
{
	const uint8_t *number = read_bytes(reader, 4);

	if (!number)
		return &misfit;
	*len = get_be32(number);
	return read_text(reader, *len, text);
}

static void keep_name(struct handshake *hs, const uint8_t *text, size_t len)
{
	memcpy(hs->name, text, len);
	hs->name[len] = '\0';
}

/* Where in the name that was asked for the export's own ends. */
static size_t own_name_len(const struct handshake *hs)
{
	uint8_t session[SESSION_ID];
	uint64_t epoch;

	if (!fence_parse(hs->name, session, &epoch))
		return strlen(hs->name);
	return strrchr(hs->name, SESSION_SUFFIX[0]) - hs->name;
}

static const struct handshake_fault *find_export(struct handshake *hs)
{
	char *end_of_own = hs->name + own_name_len(hs), kept = *end_of_own;

	*end_of_own = '\0';
	hs->transmission.facts = hs->options.find(hs->options.opaque, hs->name);
	*end_of_own = kept;
	return hs->transmission.facts ? NULL : &unknown_export;
}

/* Reads the name in front of an option's data, and finds the export. */
static const struct handshake_fault *read_export(struct handshake *hs, struct reader *reader)
{
	const struct handshake_fault *fault;
	const uint8_t *text;
	size_t len;

	fault = read_string(reader, &text, &len);
	if (fault)
		return fault;
	keep_name(hs, text, len);
	return find_export(hs);
}

/* ---- what is told of an export ---- */

static uint16_t told_flags(const struct handshake *hs)
{
	uint16_t flags = hs->transmission.facts->flags | NBD_FLAG_HAS_FLAGS;

	return hs->transmission.structured ? flags : flags & ~NBD_FLAG_SEND_DF;
}

static void tell_text(struct handshake *hs, uint16_t info, const char *text)
{
	size_t len = utf8_fit(text, NBD_MAX_STRING);

	memcpy(put_be16(put_reply(hs, NBD_REP_INFO, 2 + len), info), text, len);
}

static void tell_block_size(struct handshake *hs)
{
	const struct export_facts *facts = hs->transmission.facts;
	uint8_t *at = put_be16(put_reply(hs, NBD_REP_INFO, 14), NBD_INFO_BLOCK_SIZE);

	at = put_be32(at, facts->min_block);
	at = put_be32(at, facts->preferred_block);
	put_be32(at, facts->max_block);
}

static void tell_export(struct handshake *hs)
{
	const struct export_facts *facts = hs->transmission.facts;
	uint8_t *at = put_be16(put_reply(hs, NBD_REP_INFO, 12), NBD_INFO_EXPORT);

	put_be16(put_be64(at, facts->size), told_flags(hs));
	if (hs->wants_name)
		tell_text(hs, NBD_INFO_NAME, facts->name);
	if (hs->wants_description && facts->description)
		tell_text(hs, NBD_INFO_DESCRIPTION, facts->description);
	tell_block_size(hs);
	acknowledge(hs);
}

/* ---- options ---- */

/* They were chosen for an export by its name; what a session has there is no matter. */
static bool is_chosen(const struct handshake *hs)
{
	size_t len = own_name_len(hs);

	return hs->chosen && strlen(hs->chosen_for) == len &&
	       memcmp(hs->chosen_for, hs->name, len) == 0;
}

static void open_export(struct handshake *hs)
{
	hs->transmission.base_allocation = is_chosen(hs);
	hs->transmission.context = CONTEXT_ID;
	hs->state = HANDSHAKE_AT_OPENING;
}

static void run_export_name(struct handshake *hs)
{
	struct reader reader = option_data(hs);
	const struct handshake_fault *fault;
	const uint8_t *text;

	if (hs->transmission.extended) {
		refuse_option(hs, &has_extended);
		return;
	}
	fault = read_text(&reader, hs->data_len, &text);
	if (!fault) {
		keep_name(hs, text, hs->data_len);
		fault = find_export(hs);
	}
	if (fault)
		refuse_option(hs, fault);
	else
		open_export(hs);
}

static void run_abort(struct handshake *hs)
{
	acknowledge(hs);
	hs->state = HANDSHAKE_AT_END;
}

/* As much of the list as there is room for. */
static void go_on_listing(struct handshake *hs)
{
	while (hs->listing) {
		const struct export_facts *facts =
			hs->options.list(hs->options.opaque, hs->nr_listed);
		const char *more = facts && facts->description ? facts->description : "";
		size_t name_len = facts ? utf8_fit(facts->name, NBD_MAX_STRING) : 0;
		size_t more_len = utf8_fit(more, NBD_MAX_STRING);
		uint8_t *at;

		if (output_room(hs) < REPLY_LEN + 4 + name_len + more_len)
			return;
		hs->listing = facts;
		if (!facts)
			break;
		at = put_be32(put_reply(hs, NBD_REP_SERVER, 4 + name_len + more_len), name_len);
		memcpy(at, facts->name, name_len);
		memcpy(at + name_len, more, more_len);
		hs->nr_listed++;
	}
	acknowledge(hs);
}

static void run_list(struct handshake *hs)
{
	hs->listing = true;
	hs->nr_listed = 0;
	go_on_listing(hs);
}

static void run_starttls(struct handshake *hs)
{
	if (hs->secured || !hs->options.tls_offered) {
		refuse_option(hs, hs->secured ? &twice_tls : &no_tls);
		return;
	}
	acknowledge(hs);
	hs->state = HANDSHAKE_AT_TLS;
}

/* Reads what a client wants to know of an export; the export's name is kept. */
static const struct handshake_fault *read_wishes(struct handshake *hs)
{
	struct reader reader = option_data(hs);
	const struct handshake_fault *fault = read_export(hs, &reader);
	const uint8_t *number;

	if (fault)
		return fault;
	number = read_bytes(&reader, 2);
	if (!number || reader.left != 2 * (size_t)get_be16(number))
		return &misfit;
	hs->wants_name = hs->wants_description = false;
	while (reader.left > 0) {
		uint16_t info = get_be16(read_bytes(&reader, 2));

		hs->wants_name |= info == NBD_INFO_NAME;
		hs->wants_description |= info == NBD_INFO_DESCRIPTION;
	}
	return NULL;
}

/* NBD_OPT_GO as well: what it is told is told once the export is open. */
static void run_info(struct handshake *hs)
{
	const struct handshake_fault *fault = read_wishes(hs);

	if (fault)
		refuse_option(hs, fault);
	else if (hs->option == NBD_OPT_GO)
		open_export(hs);
	else
		tell_export(hs);
}

static void run_structured_reply(struct handshake *hs)
{
	if (hs->transmission.extended) {
		refuse_option(hs, &has_extended);
		return;
	}
	hs->transmission.structured = true;
	acknowledge(hs);
}

static void run_extended_headers(struct handshake *hs)
{
	hs->transmission.structured = hs->transmission.extended = true;
	acknowledge(hs);
}

/* ---- contexts ---- */

static bool is_query(const uint8_t *query, size_t len, const char *wanted)
{
	return len == strlen(wanted) && memcmp(query, wanted, len) == 0;
}

/* A list may be asked for all of a namespace, and by no query at all for all that there is. */
static bool finds_base_allocation(const struct handshake *hs, const uint8_t *query, size_t len)
{
	if (is_query(query, len, BASE_ALLOCATION))
		return true;
	return hs->option == NBD_OPT_LIST_META_CONTEXT &&
	       (is_query(query, len, BASE_NAMESPACE) || len == 0);
}

/* Which contexts are asked for, and of which export. */
static const struct handshake_fault *read_queries(struct handshake *hs, bool *found)
{
	struct reader reader = option_data(hs);
	const struct handshake_fault *fault = read_export(hs, &reader);
	const uint8_t *number, *query;
	uint32_t nr;
	size_t len;

	if (fault)
		return fault;
	number = read_bytes(&reader, 4);
	if (!number)
		return &misfit;
	nr = get_be32(number);
	*found = nr == 0 && hs->option == NBD_OPT_LIST_META_CONTEXT;
	for (; nr > 0; nr--) {
		fault = read_string(&reader, &query, &len);
		if (fault)
			return fault;
		*found |= finds_base_allocation(hs, query, len);
	}
	*found = *found && hs->transmission.facts->extents;
	return reader.left == 0 ? NULL : &misfit;
}

static void tell_context(struct handshake *hs, uint32_t id)
{
	uint8_t *at = put_reply(hs, NBD_REP_META_CONTEXT, 4 + strlen(BASE_ALLOCATION));

	memcpy(put_be32(at, id), BASE_ALLOCATION, strlen(BASE_ALLOCATION));
}

static void run_meta_context(struct handshake *hs)
{
	const struct handshake_fault *fault = NULL;
	bool setting = hs->option == NBD_OPT_SET_META_CONTEXT, found;
	size_t len;

	if (!hs->transmission.structured)
		fault = &needs_structured;
	if (!fault)
		fault = read_queries(hs, &found);
	if (fault) {
		refuse_option(hs, fault);
		return;
	}
	if (found)
		tell_context(hs, setting ? CONTEXT_ID : 0);
	acknowledge(hs);
	if (!found || !setting)
		return;
	len = own_name_len(hs);
	memcpy(hs->chosen_for, hs->name, len);
	hs->chosen_for[len] = '\0';
	hs->chosen = true;
}

/* ---- input ---- */

static const struct option {
	uint32_t number;
	bool has_data;
	bool in_clear; /* may come before TLS, where that is required */
	void (*run)(struct handshake *hs);
} known_options[] = {
	{ NBD_OPT_EXPORT_NAME, true, false, run_export_name },
	{ NBD_OPT_ABORT, false, true, run_abort },
	{ NBD_OPT_LIST, false, false, run_list },
	{ NBD_OPT_STARTTLS, false, true, run_starttls },
	{ NBD_OPT_INFO, true, false, run_info },
	{ NBD_OPT_GO, true, false, run_info },
	{ NBD_OPT_STRUCTURED_REPLY, false, false, run_structured_reply },
	{ NBD_OPT_LIST_META_CONTEXT, true, false, run_meta_context },
	{ NBD_OPT_SET_META_CONTEXT, true, false, run_meta_context },
	{ NBD_OPT_EXTENDED_HEADERS, false, false, run_extended_headers },
};

static const struct option *find_option(uint32_t number)
{
	for (size_t i = 0; i < sizeof(known_options) / sizeof(known_options[0]); i++)
		if (known_options[i].number == number)
			return &known_options[i];
	return NULL;
}

/* What an option's head alone tells against it. */
static const struct handshake_fault *judge_option(const struct handshake *hs)
{
	const struct option *option = find_option(hs->option);

	if (hs->options.tls_required && !hs->secured && !(option && option->in_clear))
		return &needs_tls;
	if (!option)
		return &unknown_option;
	if (!option->has_data && hs->data_len > 0)
		return &has_data;
	return hs->data_len > HANDSHAKE_DATA_MAX ? &too_long : NULL;
}

static void take_flags(struct handshake *hs)
{
	uint32_t flags = get_be32(hs->input);

	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
		end(hs, "the client has flags that nobody knows");
		return;
	}
	hs->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	hs->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	hs->state = HANDSHAKE_AT_OPTION;
}

static void take_head(struct handshake *hs)
{
	hs->option = get_be32(hs->input + 8);
	hs->data_len = get_be32(hs->input + 12);
	if (++hs->nr_options > hs->options.max_options)
		end(hs, "the client sends options without end");
	else if (hs->data_len > PASSED_MAX)
		end(hs, "the client sends an option longer than any is");
	else if (!hs->fixed && hs->option != NBD_OPT_EXPORT_NAME)
		end(hs, "the client sends an option that it has no flag for");
	if (hs->state == HANDSHAKE_AT_END)
		return;
	/* Also by one that fails. */
	if (hs->option == NBD_OPT_SET_META_CONTEXT)
		hs->chosen = false;
	hs->refusal = judge_option(hs);
	hs->state = hs->refusal ? HANDSHAKE_AT_REFUSED : HANDSHAKE_AT_DATA;
}

static void take_data(struct handshake *hs)
{
	hs->state = HANDSHAKE_AT_OPTION;
	find_option(hs->option)->run(hs);
}

static void take_refused(struct handshake *hs)
{
	hs->state = HANDSHAKE_AT_OPTION;
	refuse_option(hs, hs->refusal);
}

static bool waits_for_input(const struct handshake *hs)
{
	return hs->state <= HANDSHAKE_AT_REFUSED;
}

/* Bytes, for what the state waits for to be whole. */
static size_t needed(const struct handshake *hs)
{
	switch (hs->state) {
	case HANDSHAKE_AT_FLAGS:
		return FLAGS_LEN;
	case HANDSHAKE_AT_OPTION:
		return OPTION_LEN;
	default:
		return hs->data_len;
	}
}

static void take_whole(struct handshake *hs)
{
	static void (*const take[])(struct handshake *) = {
		[HANDSHAKE_AT_FLAGS] = take_flags,
		[HANDSHAKE_AT_OPTION] = take_head,
		[HANDSHAKE_AT_DATA] = take_data,
		[HANDSHAKE_AT_REFUSED] = take_refused,
	};

	hs->have = 0;
	take[hs->state](hs);
}

/* Garbage is known by its first byte that is wrong, and isn't waited for. */
static bool may_be_option(const struct handshake *hs)
{
	uint8_t magic[8];

	put_be64(magic, NBD_OPTS_MAGIC);
	return memcmp(hs->input, magic, hs->have < sizeof(magic) ? hs->have : sizeof(magic)) == 0;
}

/* Takes at least one byte, and returns how many. */
static size_t take_bytes(struct handshake *hs, const uint8_t *bytes, size_t len)
{
	size_t n = needed(hs) - hs->have;

	n = n < len ? n : len;
	if (hs->state != HANDSHAKE_AT_REFUSED)
		memcpy(hs->input + hs->have, bytes, n);
	hs->have += n;
	if (hs->state == HANDSHAKE_AT_OPTION && !may_be_option(hs))
		end(hs, "the client doesn't speak NBD");
	while (waits_for_input(hs) && hs->have == needed(hs)) /* once more for empty data */
		take_whole(hs);
	return n;
}

/* ---- for the caller ---- */

static enum handshake_next next_of(const struct handshake *hs)
{
	switch (hs->state) {
	case HANDSHAKE_AT_TLS:
		return HANDSHAKE_TLS;
	case HANDSHAKE_AT_OPENING:
		return HANDSHAKE_OPEN;
	case HANDSHAKE_AT_TRANSMISSION:
		return HANDSHAKE_READY;
	case HANDSHAKE_AT_END:
		return HANDSHAKE_OVER;
	default:
		return HANDSHAKE_MORE;
	}
}

/* What a client has agreed to. */
static void forget_agreed(struct handshake *hs)
{
	hs->transmission = (struct transmission){ 0 };
	hs->chosen = false;
}

void handshake_begin(struct handshake *hs, const struct handshake_options *options)
{
	uint8_t *at;

	/* Not all of it: it is large, and there may be thousands that never say a word. */
	memset(hs, 0, offsetof(struct handshake, chosen_for));
	hs->options = *options;
	hs->output_start = hs->output_end = 0;
	hs->name[0] = '\0';
	forget_agreed(hs);
	at = extend_output(hs, 18);
	at = put_be64(at, NBD_MAGIC);
	at = put_be64(at, NBD_OPTS_MAGIC);
	put_be16(at, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

const uint8_t *handshake_output(const struct handshake *hs, size_t *len)
{
	*len = hs->output_end - hs->output_start;
	return hs->output + hs->output_start;
}

void handshake_sent(struct handshake *hs, size_t len)
{
	assert(len <= hs->output_end - hs->output_start);
	hs->output_start += len;
	if (has_output(hs))
		return;
	hs->output_start = hs->output_end = 0;
	if (hs->listing)
		go_on_listing(hs);
}

enum handshake_next handshake_feed(struct handshake *hs, const uint8_t *bytes, size_t len,
				   size_t *used)
{
	*used = 0;
	while (*used < len && waits_for_input(hs) && !has_output(hs))
		*used += take_bytes(hs, bytes + *used, len - *used);
	/* A client waits for our word before it begins with TLS. */
	if (*used < len && hs->state == HANDSHAKE_AT_TLS)
		end(hs, "something came in the clear behind the wish for TLS: "
			"the connection may be under attack");
	return next_of(hs);
}

void handshake_secured(struct handshake *hs)
{
	assert(hs->state == HANDSHAKE_AT_TLS && !has_output(hs));
	hs->secured = true;
	forget_agreed(hs);
	hs->state = HANDSHAKE_AT_OPTION;
}

/* ---- an export that was opened ---- */

static void agree(struct handshake *hs)
{
	uint8_t *at;

	hs->state = HANDSHAKE_AT_TRANSMISSION;
	if (hs->option == NBD_OPT_GO) {
		tell_export(hs);
		return;
	}
	at = put_be64(extend_output(hs, 10), hs->transmission.facts->size);
	put_be16(at, told_flags(hs));
	if (!hs->no_zeroes)
		memset(extend_output(hs, 124), 0, 124);
}

static uint32_t error_reply(int errnum)
{
	switch (errnum) {
	case ENOENT:
		return NBD_REP_ERR_UNKNOWN;
	case EPERM:
	case EACCES:
		return NBD_REP_ERR_POLICY;
	case ESHUTDOWN:
		return NBD_REP_ERR_SHUTDOWN;
	default:
		return NBD_REP_ERR_PLATFORM;
	}
}

enum handshake_next handshake_opened(struct handshake *hs, int errnum, const char *text)
{
	assert(hs->state == HANDSHAKE_AT_OPENING);
	if (errnum == 0) {
		agree(hs);
	} else if (hs->option == NBD_OPT_GO) {
		hs->state = HANDSHAKE_AT_OPTION;
		put_error(hs, error_reply(errnum), text);
	} else {
		end(hs, "the export can't be opened");
	}
	return next_of(hs);
}
