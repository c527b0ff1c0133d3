/* report: what the plugin tells its user. */
#ifndef NDIO_REPORT_H
#define NDIO_REPORT_H

#include <nbdkit-plugin.h>

#include "base/notice.h"

/* Tells an error, as printf. -1, as nbdkit wants it of a callback that fails. */
#define FAIL(...) (nbdkit_error(__VA_ARGS__), -1)

/* Takes what isn't an error. Any thread. */
extern const struct notice report_notice;

/* From now on nbdkit may be in the background. */
void report_forked(void);

#endif
