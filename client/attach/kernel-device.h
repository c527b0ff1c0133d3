/* kernel-device: the kernel's /dev/nbdN: what sysfs tells of it, and nbd-client, which connects it
 * to a server and lets it go. */
#ifndef NDIO_KERNEL_DEVICE_H
#define NDIO_KERNEL_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define KERNEL_DEVICES_MAX 1024 /* what we count up to */

struct kernel_device_connect {
	const char *socket; /* path of the server's */
	unsigned connections;
	unsigned block_size; /* bytes */
	unsigned timeout;    /* seconds, of each connection */
};

/* All that was done since the kernel made it. */
struct kernel_device_counts {
	uint64_t reads, read_bytes, writes, written_bytes;
};

struct kernel_device_facts {
	uint64_t size; /* bytes */
	bool read_only;
	struct kernel_device_counts counts;
};

/* "nbd7" or "/dev/nbd7": its number. False: neither. */
bool kernel_device_parse(const char *name, unsigned *index);

/* Loads the module, if it isn't there. 0 or a negative errno with a message. */
int kernel_device_load_module(struct error *err);

/* Is it connected, or was it and is still open somewhere? */
bool kernel_device_attached(unsigned index);

/* How many of its connections the kernel reads. 0: it has given up on all of them, which is for
 * good, and every request fails. */
unsigned kernel_device_readers(unsigned index);

/* Is no request on its way to the gateway? */
bool kernel_device_idle(unsigned index);

/* Of one that isn't there all is 0. */
void kernel_device_facts(unsigned index, struct kernel_device_facts *facts);

/* Connects it and returns when it can be used. When this fails, or is interrupted, it may be
 * connected even so: the server has to be ended then, and kernel_device_let_go_dead() is due. */
int kernel_device_connect(unsigned index, const struct kernel_device_connect *connect,
			  struct error *err);

/* Opens it so that nobody else can mount or otherwise claim it meanwhile. A descriptor; -EBUSY
 * where somebody has. */
int kernel_device_claim(unsigned index, struct error *err);

/* A process that has it open, or a partition of it, besides this one; 0: none. A claim doesn't find
 * those that have made none. */
pid_t kernel_device_user(unsigned index);

/* Disconnects it, whoever uses it. What is in flight fails. */
int kernel_device_disconnect(unsigned index, struct error *err);

/* Disconnects it if its server has ended, and leaves it alone if it is connected to another one. */
void kernel_device_let_go_dead(unsigned index);

/* Waits until the kernel has let go of it. -EBUSY: not within ms milliseconds. */
int kernel_device_wait_free(unsigned index, unsigned ms);

#endif
