#include "notices.h"

#include <stdlib.h>
#include <string.h>

/* Called on the library's threads, where nothing may wait: the lock is only held for a pointer. */
void notices_add(void *opaque, const char *message)
{
	struct notices *notices = opaque;
	char *text = strdup(message), *old;

	pthread_mutex_lock(&notices->lock);
	old = notices->text[notices->next % NOTICES];
	notices->text[notices->next++ % NOTICES] = text;
	pthread_mutex_unlock(&notices->lock);
	free(old);
}

/* The oldest that nobody has seen, or NULL; the caller frees it. */
static char *take_notice(struct notices *notices)
{
	char *text = NULL;
	unsigned i;

	pthread_mutex_lock(&notices->lock);
	for (i = 0; i < NOTICES && !text; i++) {
		char **place = &notices->text[(notices->next + i) % NOTICES];

		text = *place;
		*place = NULL;
	}
	pthread_mutex_unlock(&notices->lock);
	return text;
}

PyObject *notices_list(struct notices *notices)
{
	PyObject *list = PyList_New(0), *item;
	char *text;

	while (list && (text = take_notice(notices))) {
		item = PyUnicode_DecodeFSDefault(text);
		free(text);
		if (!item || PyList_Append(list, item) < 0)
			Py_CLEAR(list);
		Py_XDECREF(item);
	}
	return list;
}

void notices_clear(struct notices *notices)
{
	char *text;

	while ((text = take_notice(notices)))
		free(text);
}
