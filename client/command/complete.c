#include "command/complete.h"

#include <ctype.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attach/kernel-device.h"
#include "attach/ndiotab.h"
#include "locator/locator.h"

/* The line so far. */
struct line {
	const struct command *commands;
	size_t nr_commands;
	const struct command *command; /* that it names */
	const char *help;              /* that one's */
	char **words;                  /* behind that; the last one is being typed */
	int count;
	const char *typed; /* the last word */
	size_t lead_len;   /* of its start that isn't part of candidates: "--type=" */
};

/* What these options can be; of others, the help tells whether they name files. */
static const struct {
	const char *option, *values;
} known_values[] = {
	{ "type", "luks2 luks1" },
	{ "cipher",
	  "aes-xts-plain64 aes-cbc-essiv:sha256 aes-cbc-plain64 aes-cbc-plain aes-gcm-random "
	  "aes-xts-random chacha20-random" },
	{ "integrity", "aead hmac-sha256 hmac-sha512 poly1305" },
	{ "key-size", "512 256 192 128" },
	{ "sector-size", "512 1024 2048 4096" },
	{ "block-size", "512 1024 2048 4096" },
	{ "pbkdf", "argon2id argon2i pbkdf2" },
	{ "sparse", "0 4K 64K 256K" },
	{ "direct", "auto on off" },
	{ "can", "flush fua trim fast-zero extents cache multi-conn connect read write zero "
		 "structured-reply" },
	{ "is", "read-only tls" },
	{ "priority", "prefer normal ignore" },
	{ "checksum", "sha256 sha512 blake2b512" },
	{ "token", "any" },
	{ "src-token", "any" },
	{ "dst-token", "any" },
};

#define SCHEMES "nbd:// nbds:// nbd+unix:///?socket= nbds+unix:///?socket="

/* ---- candidates ---- */

static void offer_word(const struct line *line, const char *word, size_t len, const char *about,
		       size_t about_len)
{
	const char *typed = line->typed + line->lead_len;

	if (len < strlen(typed) || memcmp(word, typed, strlen(typed)) != 0)
		return;
	printf("%.*s%.*s", (int)line->lead_len, line->typed, (int)len, word);
	if (about_len)
		printf("\t%.*s", (int)about_len, about);
	putchar('\n');
}

static void offer_words(const struct line *line, const char *words)
{
	size_t len;

	for (; *words; words += len + strspn(words + len, " ")) {
		len = strcspn(words, " ");
		offer_word(line, words, len, NULL, 0);
	}
}

static void offer_files(const struct line *line, size_t lead_len)
{
	printf(":files\t%.*s\n", (int)lead_len, line->typed);
}

/* A parameter of an URI that is the path of something. */
static bool offer_uri_files(const struct line *line)
{
	const char *equals = strrchr(line->typed, '=');

	if (!locator_is_uri(line->typed + line->lead_len) || !equals)
		return false;
	offer_files(line, equals + 1 - line->typed);
	return true;
}

static void offer_locators(const struct line *line)
{
	if (offer_uri_files(line))
		return;
	offer_words(line, SCHEMES);
	offer_files(line, line->lead_len);
}

static void offer_commands(const struct line *line)
{
	for (size_t i = 0; i < line->nr_commands; i++) {
		const struct command *command = &line->commands[i];

		offer_word(line, command->name, strlen(command->name), command->summary,
			   strlen(command->summary));
	}
}

static void offer_attached(const struct line *line)
{
	glob_t found;
	char name[32];

	if (glob("/sys/block/nbd*/pid", 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		if (sscanf(found.gl_pathv[i], "/sys/block/%31[^/]", name) == 1)
			offer_word(line, name, strlen(name), NULL, 0);
	globfree(&found);
}

static void offer_tab(const struct line *line)
{
	FILE *file = fopen(NDIOTAB_PATH, "re");
	char text[1024], name[32];
	unsigned index;

	while (file && fgets(text, sizeof(text), file))
		if (sscanf(text, " %31s", name) == 1 && kernel_device_parse(name, &index)) {
			snprintf(name, sizeof(name), "nbd%u", index);
			offer_word(line, name, strlen(name), NULL, 0);
		}
	if (file)
		fclose(file);
}

/* ---- options, as the help has them ---- */

static bool is_name(char c)
{
	return islower((unsigned char)c) || isdigit((unsigned char)c) || c == '-';
}

static size_t name_len(const char *option)
{
	size_t len = 0;

	while (is_name(option[len]))
		len++;
	return len;
}

/* What the command prints, which may become another program for it. */
static const char *ask_for_help(const struct command *command)
{
	static char text[16 * 1024], option[] = "--help";
	char *argv[] = { (char *)command->name, option, NULL };
	size_t len = 0;
	ssize_t n = 1;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return "";
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		_exit(command->run(2, argv));
	}
	close(ends[1]);
	while (n > 0 && len < sizeof(text) - 1) {
		n = read(ends[0], text + len, sizeof(text) - 1 - len);
		len += n > 0 ? n : 0;
	}
	close(ends[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return text;
}

/* The next option in a text, behind its dashes; or NULL. */
static const char *next_option(const char *text)
{
	const char *at = strstr(text, "--");

	while (at && !(islower((unsigned char)at[2]) && (at == text || !is_name(at[-1]))))
		at = strstr(at + 2, "--");
	return at ? at + 2 : NULL;
}

/* Where its help first has it, with what belongs to it behind it; or NULL. */
static const char *find_in_help(const char *help, const char *name, size_t len)
{
	const char *at = help;

	while ((at = next_option(at)))
		if (name_len(at) == len && memcmp(at, name, len) == 0)
			return at;
	return NULL;
}

/* "FILE" of "--key-file FILE" and "--src-key-file=FILE"; NULL: it takes none. */
static const char *placeholder(const char *option)
{
	const char *value = option + name_len(option);

	return (*value == ' ' || *value == '=') && isupper((unsigned char)value[1]) ? value + 1 :
										      NULL;
}

static bool takes_value(const struct line *line, const char *word)
{
	const char *option;

	if (strncmp(word, "--", 2) != 0 || word[2] == '\0' || strchr(word, '='))
		return false;
	option = find_in_help(line->help, word + 2, strlen(word + 2));
	return option && placeholder(option);
}

/* What a line of help says behind the option, if it starts with that one alone. */
static size_t option_about(const char *option, const char **about)
{
	const char *at = option + name_len(option);
	size_t gap;

	at += placeholder(option) ? strcspn(at + 1, " \n") + 1 : 0;
	gap = strspn(at, " ");
	*about = at + gap;
	return gap >= 2 ? strcspn(*about, "\n") : 0;
}

static void offer_options(const struct line *line)
{
	const char *help = line->help, *about;
	size_t about_len;
	char option[64];

	for (const char *at = help; (at = next_option(at));) {
		size_t len = name_len(at);

		if (find_in_help(help, at, len) != at)
			continue;
		snprintf(option, sizeof(option), "--%.*s", (int)len, at);
		about_len = option_about(at, &about);
		offer_word(line, option, strlen(option), about, about_len);
	}
}

static void offer_value(const struct line *line, const char *name, size_t len)
{
	const char *option = find_in_help(line->help, name, len);
	const char *value = option ? placeholder(option) : NULL;

	for (size_t i = 0; i < sizeof(known_values) / sizeof(known_values[0]); i++)
		if (strlen(known_values[i].option) == len &&
		    memcmp(known_values[i].option, name, len) == 0) {
			offer_words(line, known_values[i].values);
			return;
		}
	if (value && strncmp(value, "LOCATOR", 7) == 0)
		offer_locators(line);
	else if (value && (strncmp(value, "FILE", 4) == 0 || strncmp(value, "PATH", 4) == 0 ||
			   strncmp(value, "DIR", 3) == 0 || strncmp(value, "WHERE", 5) == 0))
		offer_files(line, line->lead_len);
}

/* ---- operands ---- */

static bool is_command(const struct line *line, const char *name)
{
	return strcmp(line->command->name, name) == 0;
}

/* How many there are before the word that is typed; *tab: --tab is among the options. */
static int count_operands(const struct line *line, bool *tab)
{
	int count = 0;

	*tab = false;
	for (int i = 0; i < line->count - 1; i++) {
		*tab = *tab || strncmp(line->words[i], "--tab", 5) == 0;
		if (takes_value(line, line->words[i]))
			i++;
		else if (line->words[i][0] != '-' || !line->words[i][1])
			count++;
	}
	return count;
}

static void offer_operand(const struct line *line)
{
	bool tab;
	int before = count_operands(line, &tab);

	if (is_command(line, "key") && before == 0) {
		offer_words(line, "add remove change dump list");
	} else if (is_command(line, "header") && before == 0) {
		offer_words(line, "backup restore erase config");
	} else if (is_command(line, "header") && before == 2) {
		offer_files(line, 0);
	} else if (is_command(line, "detach")) {
		offer_attached(line);
	} else if (tab) {
		offer_tab(line);
	} else if (is_command(line, "psk")) {
		if (before == 0)
			offer_files(line, 0);
	} else if (!is_command(line, "list") && (!is_command(line, "attach") || before == 0)) {
		if (is_command(line, "copy") && before == 1)
			offer_words(line, "null:");
		offer_locators(line);
	}
}

/* ---- all of it ---- */

static void offer_in_command(struct line *line)
{
	const char *typed = line->typed, *equals = strchr(typed, '=');
	const char *before = line->count > 1 ? line->words[line->count - 2] : NULL;

	if (before && takes_value(line, before)) {
		offer_value(line, before + 2, strlen(before + 2));
	} else if (strncmp(typed, "--", 2) == 0 && equals) {
		line->lead_len = equals + 1 - typed;
		offer_value(line, typed + 2, equals - typed - 2);
	} else if (typed[0] == '-' && typed[1]) {
		offer_options(line);
	} else {
		offer_operand(line);
	}
}

void complete_words(const struct command *commands, size_t nr_commands, char **words, int count)
{
	struct line line = { .commands = commands, .nr_commands = nr_commands };

	if (count < 1)
		return;
	line.typed = words[count - 1];
	if (count == 1 || (count == 2 && strcmp(words[0], "help") == 0)) {
		offer_commands(&line);
		if (count == 1)
			offer_words(&line, "help --help --version");
		return;
	}
	for (size_t i = 0; i < nr_commands; i++)
		if (strcmp(commands[i].name, words[0]) == 0)
			line.command = &commands[i];
	line.words = words + 1;
	line.count = count - 1;
	if (!line.command)
		return;
	line.help = line.command->help ? line.command->help : ask_for_help(line.command);
	offer_in_command(&line);
}
