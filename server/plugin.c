/* plugin: what nbdkit calls, and the table that tells it so.
 *
 * In their order: load, config for each parameter, config_complete, get_ready; the fork; after_fork;
 * then open for each client, what it asks of the export, and its requests, in nbdkit's threads, many
 * at once; close when these have ended; and unload. What is more than an answer is in parameters,
 * start and requests.
 *
 * Every client sees the one volume; a connection's own is only the fence. */
#include <inttypes.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "host.h"
#include "memory.h"
#include "nbd/lasting-words.h"
#include "parameters.h"
#include "requests.h"
#include "start.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static void plugin_load(void)
{
	struct sigaction now;

	host_loaded();
	/* Writing a file beyond ulimit -f is the client's error then, and not the server's end. */
	if (sigaction(SIGXFSZ, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGXFSZ, SIG_IGN);
}

static void plugin_dump_plugin(void)
{
	printf("ndio_ciphers=aes-xts-plain64 aes-cbc-plain64 aes-cbc-plain aes-cbc-essiv:sha256\n");
	printf("ndio_formats=raw luks1 luks2\n");
	printf("ndio_openssl=%s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
	memory_dump();
#ifdef HAVE_SDT
	printf("ndio_usdt=yes\n");
#else
	printf("ndio_usdt=no\n");
#endif
}

/* May wait for what older connections run. nbdkit has a thread for each, and lets others in. */
static void *plugin_open(int readonly)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	const bool later = config.open.file && config.open.locking == LOCK_IMAGE_LATER;
	const char *name = nbdkit_export_name();
	struct fence_handle *handle;
	struct error err;
	int ret = 0;

	if (!name)
		return NULL;
	/* nbdkit itself refuses writes of clients that may only read. */
	if (!readonly && !volume->readonly && later) {
		pthread_mutex_lock(&mutex);
		ret = target_file_lock(volume->disk, &err);
		pthread_mutex_unlock(&mutex);
	}
	if (ret == 0)
		ret = fence_open(&fences, name, &handle, &err);
	if (ret < 0)
		nbdkit_error("%s", err.text);
	else
		meters_opened(meters);
	return ret < 0 ? NULL : handle;
}

static void plugin_close(void *handle)
{
	fence_close(handle);
	meters_closed(meters);
}

/* Also who this is, and of a gateway how its server is. */
static const char *plugin_export_description(void *handle)
{
	static _Thread_local char text[3 * 128]; /* what nbdkit interns it keeps for good */
	struct lasting_facts facts;
	int len = !volume->encrypted ? 0 :
				       snprintf(text, 128, VOLUME_DESCRIPTION "; ",
						volume->luks.version, volume->sector);

	len += snprintf(text + len, 128, "%s", fences.identity);
	if (target_nbd_lasting(volume->disk, &facts))
		lasting_say(&facts, text + len, 128);
	return text;
}

/* Whoever asks what there is learns who this is without opening it. */
static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	return nbdkit_add_export(exports, "", fences.identity);
}

static int64_t plugin_get_size(void *handle)
{
	return volume->size;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			     uint32_t *maximum)
{
	*minimum = 1;
	*preferred = volume->block > 4096 ? volume->block : 4096;
	*maximum = MAX_REQUEST;
	return 0;
}

/* What the volume can. */
#define ANSWER(name, value)                                                                        \
	static int plugin_##name(void *handle)                                                     \
	{                                                                                          \
		return value;                                                                      \
	}

ANSWER(can_write, !volume->readonly)
ANSWER(can_flush, volume->target->can_flush)
ANSWER(is_rotational, volume->target->rotational)
ANSWER(can_trim, volume->can_trim)
ANSWER(can_fast_zero, volume->can_fast_zero)
ANSWER(can_extents, volume->can_extents)
ANSWER(can_fua, volume->target->can_fua ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE)
ANSWER(can_cache, volume->target->can_cache ? NBDKIT_CACHE_NATIVE : NBDKIT_CACHE_NONE)
ANSWER(can_multi_conn, 1) /* nothing is cached here: a flush on one covers the writes of all */

static unsigned plugin_flags(uint32_t nbdkit_flags)
{
	return (nbdkit_flags & NBDKIT_FLAG_FUA ? REQ_FUA : 0) |
	       (nbdkit_flags & NBDKIT_FLAG_MAY_TRIM ? REQ_MAY_TRIM : 0) |
	       (nbdkit_flags & NBDKIT_FLAG_FAST_ZERO ? REQ_FAST_ZERO : 0);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return requests_run(handle, OP_READ, plugin_flags(flags), offset, count, buf, NULL, NULL);
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			 uint32_t flags)
{
	return requests_run(handle, OP_WRITE, plugin_flags(flags), offset, count, (void *)buf, NULL,
			    NULL);
}

static int plugin_flush(void *handle, uint32_t flags)
{
	return requests_run(handle, OP_FLUSH, plugin_flags(flags), 0, 0, NULL, NULL, NULL);
}

#define WITHOUT_DATA(name, op)                                                                     \
	static int plugin_##name(void *handle, uint32_t count, uint64_t offset, uint32_t flags)    \
	{                                                                                          \
		return requests_run(handle, op, plugin_flags(flags), offset, count, NULL, NULL,    \
				    NULL);                                                         \
	}

WITHOUT_DATA(trim, OP_TRIM)
WITHOUT_DATA(zero, OP_ZERO)
WITHOUT_DATA(cache, OP_CACHE)

static int plugin_add_extent(void *opaque, uint64_t offset, uint64_t len, unsigned type)
{
	return nbdkit_add_extent(opaque, offset, len, type) < 0 ? -errno : 0;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			  struct nbdkit_extents *extents)
{
	return requests_run(handle, OP_EXTENTS, plugin_flags(flags), offset, count, NULL,
			    plugin_add_extent, extents);
}

static struct nbdkit_plugin plugin = {
	.name = "ndio",
	.longname = "ndio encrypted disks",
	.version = NDIO_VERSION,
	.description = "Serve a disk with direct I/O, encrypted on the fly as LUKS",
	.load = plugin_load,
	.unload = start_unload,
	.config = parameters_take,
	.config_complete = parameters_complete,
	.config_help = parameters_help,
	.magic_config_key = "file",
	.dump_plugin = plugin_dump_plugin,
	.get_ready = start_get_ready,
	.after_fork = start_after_fork,
	.open = plugin_open,
	.close = plugin_close,
	.list_exports = plugin_list_exports,
	.export_description = plugin_export_description,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_can_flush,
	.is_rotational = plugin_is_rotational,
	.can_trim = plugin_can_trim,
	.can_fast_zero = plugin_can_fast_zero,
	.can_fua = plugin_can_fua,
	.can_multi_conn = plugin_can_multi_conn,
	.can_cache = plugin_can_cache,
	.can_extents = plugin_can_extents,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.trim = plugin_trim,
	.zero = plugin_zero,
	.cache = plugin_cache,
	.extents = plugin_extents,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
