#include "library/callback.h"

#include <errno.h>

#include "library/message.h"
#include "library/queue.h"

/* One may be called in another: a notice while a request is made. */
static _Thread_local unsigned depth;

/* Whatever has ended so far is told before: the callback may take its time, or wait for who waits
 * for that, or free the queue. */
void callback_enter(void)
{
	queue_tell();
	depth++;
}

void callback_leave(void)
{
	depth--;
}

bool callback_is_running(void)
{
	return depth > 0;
}

int callback_refuse(const char *what)
{
	if (depth == 0)
		return 0;
	return message_set(EDEADLK, "%s: not in a callback, which might wait for itself", what);
}
