/* report: what the plugin tells its user. */
#ifndef NDIO_REPORT_H
#define NDIO_REPORT_H

/* What isn't an error: for struct notice. Any thread. */
void notice(void *opaque, const char *message);

/* From now on nbdkit may be in the background. */
void report_forked(void);

#endif
