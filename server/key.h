/* key: the volume's key, from passphrase=, keyfile= or ask=. */
#ifndef NDIO_SERVER_KEY_H
#define NDIO_SERVER_KEY_H

/* Asks for it, or reads it, and puts it, or who asks for it later, into config.open; nothing if the
 * parameters have none. 0, or -1 with an error told. */
int key_get(void);

/* The volume is open, or won't be: cleanses it, and nobody will be asked any more. */
void key_forget(void);

#endif
