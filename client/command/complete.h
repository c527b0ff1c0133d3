/* complete: what can follow on a command line, for the shells' completions. */
#ifndef NDIO_COMPLETE_H
#define NDIO_COMPLETE_H

#include <stddef.h>

#include "command/cmd.h"

/* Prints what the last of the words behind "ndio" can become, one a line, with a tab and a
 * description behind it if there is one. ":files" and a tab stand for names of files, which shells
 * know better; what follows is the part of the word before the name. Options are those that the
 * command's help tells of. */
void complete_words(const struct command *commands, size_t nr_commands, char **words, int count);

#endif
