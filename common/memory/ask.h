/* ask: how one program has another one ask somebody for a passphrase.
 *
 * Between them is a socket that keeps packets apart (SOCK_SEQPACKET). A question is a packet that
 * says why the passphrase before opens nothing, at first nothing; an answer is one with a
 * passphrase. A newline ends either: it tells an empty passphrase from the end. Who has no answer
 * hangs up, and so does who has no question any more.
 *
 * A question that begins with an ENQ (5) is for the PIN of a token: that is named, and behind another ENQ is
 * why the PIN before isn't it. An empty answer then says that there is none. */
#ifndef NDIO_ASK_H
#define NDIO_ASK_H

#include <stdbool.h>

#include "base/error.h"
#include "memory/secret.h"

#define ASK_MAX 4095 /* bytes; with the newline, what a key has room for from the start */

/* The end that asks. */
struct asker {
	int fd;
	char name[32]; /* for messages: what the user has called it */
};

/* Takes a descriptor that this program was given, which what it runs from now on isn't. 0, or a negative errno
 * with a message that starts with the asker's name. */
int ask_take(const struct asker *asker, struct error *err);

/* Asks, and waits for the answer. err says why the one before opens nothing. 0, or a negative errno
 * with a message: where no answer comes, that one. key_clear() is due either way. opaque: the struct
 * asker (see struct luks_asker). */
int ask_key(void *opaque, struct key *key, struct error *err);

/* The same for the PIN of a token (see struct luks_tokens). */
int ask_pin(void *opaque, const char *token, struct key *pin, struct error *err);

/* Is the question for a PIN? Then it is cut: of which token, and why the one before isn't it. */
bool ask_is_pin(struct error *question, const char **token, const char **why);

/* Takes the next question. True: why says why the one before opens nothing. False: there is none, nor
 * will be. */
bool ask_next(int fd, struct error *why);

/* 0, or a negative errno with a message. */
int ask_answer(int fd, const struct key *key, struct error *err);

#endif
