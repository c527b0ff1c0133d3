/* shield: what a process needs that the kernel writes dirty memory through: its own memory must
 * never wait for that. */
#ifndef NDIO_SHIELD_H
#define NDIO_SHIELD_H

#include "base/error.h"
#include "base/notice.h"

/* Locks all memory of the process, what it will use later as well; then marks the process an I/O
 * flusher (prctl(2), PR_SET_IO_FLUSHER), as every thread that it starts from now on, and hides
 * it from the OOM killer. A fork loses the first. option is in front of messages: "lock=on". 0, or a
 * negative errno with a message where memory can't be locked; notice is told what else isn't allowed. */
int shield_raise(const char *option, const struct notice *notice, struct error *err);

#endif
