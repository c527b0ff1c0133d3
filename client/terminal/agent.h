/* agent: a passphrase asked for where there is no terminal, as at boot: through systemd's password
 * agents, systemd-ask-password(1). */
#ifndef NDIO_AGENT_H
#define NDIO_AGENT_H

#include <sys/types.h>

#include "base/error.h"

struct agent {
	pid_t pid;
	int fd; /* the passphrase, with no newline, and then its end */
};

/* Starts to ask. -ENOENT with a message: there are no such agents here. */
int agent_start(struct agent *agent, const char *prompt, struct error *err);

/* Waits for it to end. -ENODATA with a message: nobody has typed one. Without err, it is made to
 * end: the passphrase isn't wanted any more. */
int agent_end(struct agent *agent, struct error *err);

#endif
