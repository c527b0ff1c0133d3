/* session-name: how a server tells who it is, and how a client's connections say that they are one
 * session. In the export's description, behind other words if there are any:
 *
 *	ndio VERSION instance=ID[ fences]
 *
 * and at the end of the export's name that is asked for, behind the user's own:
 *
 *	NAME;ndio-session=ID.EPOCH
 *
 * Each ID is SESSION_ID bytes, drawn by lot, in lower-case hexadecimal; EPOCH counts up, in 1 to 16
 * such digits without a zero in front. */
#ifndef NDIO_SESSION_NAME_H
#define NDIO_SESSION_NAME_H

#define SESSION_ID     16 /* bytes */
#define SAYS_INSTANCE  "instance="
#define SAYS_FENCES    " fences"
#define SESSION_SUFFIX ";ndio-session="

#endif
