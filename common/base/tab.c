#include "base/tab.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/align.h"
#include "base/number.h"

#define BLANKS " \t"

/* ---- files ---- */

/* A plain file alone: a FIFO would keep us waiting. */
static FILE *tab_open(const char *path, struct error *err)
{
	struct stat st;
	FILE *file;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		errno = EINVAL;
		error_set(err, EINVAL, "%s: not a plain file", path);
		return NULL;
	}
	file = fopen(path, "re");
	if (!file)
		error_set(err, errno, "%s: %s", path, strerror(errno));
	return file;
}

int tab_read(const char *path, size_t max, char **text, size_t *len, struct error *err)
{
	FILE *file = tab_open(path, err);
	int ret = 0;

	*text = NULL;
	if (!file)
		return -errno;
	*text = malloc(max + 1);
	if (*text)
		*len = fread(*text, 1, max + 1, file);
	if (!*text || ferror(file))
		ret = error_set(err, errno, "%s: %s", path, strerror(errno));
	else if (*len > max)
		ret = error_set(err, EFBIG, "%s: it has more than %zu bytes", path, max);
	fclose(file);
	if (ret < 0) {
		free(*text);
		*text = NULL;
	}
	return ret;
}

/* Lines as editors of other systems end them are fine. NULs aren't: strings end there. */
static int check_text(char *line, size_t len, struct error *why)
{
	if (len > 0 && line[len - 1] == '\r')
		line[--len] = '\0';
	for (size_t i = 0; i < len; i++)
		if (iscntrl((unsigned char)line[i]) && line[i] != '\t')
			return error_set(why, EINVAL, "character %zu is not text (0x%02x)", i + 1,
					 (unsigned char)line[i]);
	return 0;
}

int tab_take_lines(const char *path, char *text, size_t len, tab_taker *take, void *opaque,
		   struct error *err)
{
	char *end = text + len, *line_end;
	unsigned number = 1;
	struct error why;
	int ret;

	for (char *line = text; line < end; line = line_end + 1, number++) {
		line_end = memchr(line, '\n', end - line);
		if (!line_end)
			line_end = end;
		*line_end = '\0';
		ret = check_text(line, line_end - line, &why);
		line += strspn(line, BLANKS);
		if (ret == 0 && *line && *line != '#')
			ret = take(opaque, line, number, &why);
		if (ret < 0)
			return error_set(err, -ret, "%s:%u: %s", path, number, why.text);
	}
	return 0;
}

/* ---- a line ---- */

char *tab_next_field(char **line)
{
	char *field = *line + strspn(*line, BLANKS);

	*line = field + strcspn(field, BLANKS);
	if (**line)
		*(*line)++ = '\0';
	return *field ? field : NULL;
}

static int set_path(const struct tab_option *option, void *member, char *value, struct error *why)
{
	bool is_path = option->kind == TAB_PATH || strchr(value, '/');

	if (is_path && value[0] != '/')
		return error_set(why, EINVAL, "%s=%.100s is not an absolute path", option->name,
				 value);
	*(const char **)member = value;
	return 0;
}

static int set_word(const struct tab_option *option, void *member, const char *value,
		    struct error *why)
{
	const char *word = option->words;
	unsigned index = 0;
	size_t len;

	for (; *word; word += len, word += strspn(word, ", "), index++) {
		len = strcspn(word, ",");
		if (strlen(value) == len && memcmp(word, value, len) == 0) {
			*(unsigned *)member = index;
			return 0;
		}
	}
	return error_set(why, EINVAL, "%s=%.100s is none of %s", option->name, value,
			 option->words);
}

static int set_number(const struct tab_option *option, void *member, const char *value,
		      struct error *why)
{
	bool power = option->kind == TAB_POWER;
	uint64_t number;

	if (!parse_number(value, option->max, &number) || number < option->min ||
	    (power && !is_aligned(number, number)))
		return error_set(why, EINVAL, "%s=%.100s is not a %s from %" PRIu64 " to %" PRIu64,
				 option->name, value, power ? "power of two" : "number",
				 option->min, option->max);
	*(unsigned *)member = number;
	return 0;
}

static int set_size(const struct tab_option *option, void *member, const char *value,
		    struct error *why)
{
	uint64_t size;

	if (!parse_size(value, &size) || size < option->min || size > option->max)
		return error_set(why, EINVAL,
				 "%s=%.100s is not a size from %" PRIu64 " to %" PRIu64 " bytes",
				 option->name, value, option->min, option->max);
	*(uint64_t *)member = size;
	return 0;
}

static int set_member(const struct tab_option *option, void *member, char *value, struct error *why)
{
	if ((option->kind == TAB_FLAG) != !value)
		return error_set(why, EINVAL, "option %s %s", option->name,
				 value ? "takes no value" : "needs a value");
	switch (option->kind) {
	case TAB_FLAG:
		*(bool *)member = true;
		return 0;
	case TAB_TEXT:
		*(const char **)member = value;
		return 0;
	case TAB_PATH:
	case TAB_PLACE:
		return set_path(option, member, value, why);
	case TAB_WORD:
		return set_word(option, member, value, why);
	case TAB_SIZE:
		return set_size(option, member, value, why);
	default:
		return set_number(option, member, value, why);
	}
}

int tab_set_options(void *entry, const struct tab_option *options, size_t count, char *list,
		    uint32_t *given, struct error *why)
{
	int ret = 0;

	while (ret == 0 && list) {
		char *value = strsep(&list, ","), *name = strsep(&value, "=");
		size_t i = 0;

		while (i < count && strcmp(name, options[i].name) != 0)
			i++;
		if (i == count)
			return error_set(why, EINVAL, "unknown option \"%.100s\"", name);
		if (given && *given & UINT32_C(1) << i)
			return error_set(why, EINVAL, "option %s is given twice", name);
		if (given)
			*given |= UINT32_C(1) << i;
		ret = set_member(&options[i], (char *)entry + options[i].member, value, why);
	}
	return ret;
}
