/* asker: the passphrase from another program, which asks somebody for it (ask=). */
#ifndef NDIO_ASKER_H
#define NDIO_ASKER_H

/* value is the descriptor of a socket that keeps packets apart (SOCK_SEQPACKET). It is closed in
 * what is run from now on. Fills config.open.asker. 0, or -1 with an error told. */
int asker_open(const char *value);

/* Nobody will be asked any more. Harmless if nobody was to be. */
void asker_close(void);

#endif
