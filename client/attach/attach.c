#include "attach/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach/attachment.h"
#include "attach/clash.h"
#include "attach/flush.h"
#include "attach/gateway.h"
#include "attach/kernel-device.h"
#include "locator/locator.h"
#include "locator/same.h"
#include "nbd/nbd-server.h"
#include "nbd/nbd-uri.h"
#include "terminal/device-users.h"
#include "terminal/interrupt.h"
#include "terminal/key-try.h"
#include "terminal/partition-table.h"
#include "terminal/patience.h"
#include "terminal/program.h"
#include "terminal/say.h"
#include "terminal/server-program.h"

#define UNUSED_MS 2000  /* until who only looks what is on a device, like udev, has seen it */
#define GOING_MS  5000  /* until who has a disconnected device open, like udev, has let it go */
#define FREE_MS   10000 /* until the kernel has let go of a device that was disconnected */

bool attach_block_size_valid(unsigned block_size)
{
	return block_size == 512 || block_size == 1024 || block_size == 2048 || block_size == 4096;
}

/* Puts the step before what went wrong in it. Returns ret. */
static int step_failed(int ret, const char *step, struct error *err)
{
	struct error reason = *err;

	return error_set(err, -ret, "%s: %s", step, reason.text);
}

/* ---- a device to attach it to ---- */

static int refuse_attached(unsigned index, struct error *err)
{
	if (!kernel_device_attached(index))
		return 0;
	return error_set(err, EBUSY, "/dev/nbd%u is attached already", index);
}

/* Ends and removes whatever a command that died has left. The lock is kept all the while: who had
 * it meanwhile could attach the device, and its gateway would be taken for such a leftover. */
static int clean(const struct attachment *attachment, struct error *err)
{
	int ret = gateway_stop(attachment->socket, true, err);

	if (ret == 0)
		attachment_clear(attachment);
	return ret;
}

/* On success the folder is locked and empty. */
static int claim(struct attachment *attachment, unsigned index, struct error *err)
{
	int ret = attachment_init(attachment, index, err);

	if (ret == 0)
		ret = refuse_attached(index, err);
	if (ret == 0)
		ret = attachment_lock(attachment, err);
	if (ret < 0)
		return ret;
	ret = refuse_attached(index, err); /* once more, under the lock */
	if (ret == 0)
		ret = clean(attachment, err);
	if (ret < 0)
		attachment_unlock(attachment);
	return ret;
}

static int claim_any(struct attachment *attachment, struct error *err)
{
	int ret = -EBUSY;

	for (unsigned index = 0; ret == -EBUSY && index < KERNEL_DEVICES_MAX; index++)
		ret = claim(attachment, index, err);
	return ret;
}

/* ---- the steps ---- */

/* What the gateway has checked before it asks isn't asked for in vain. */
struct asking {
	const struct attach_spec *spec;
	int ret; /* what came of it */
};

static int attach_ask_key(void *opaque, key_try_fn *try, void *try_opaque, struct error *err)
{
	struct asking *asking = opaque;
	struct key key = { 0 };
	char prompt[256];

	snprintf(prompt, sizeof(prompt), "Passphrase for %s", asking->spec->locator);
	asking->ret = kernel_device_load_module(err);
	if (asking->ret == 0)
		asking->ret = key_try(&asking->spec->key, NULL, prompt, &key, try, try_opaque, err);
	key_clear(&key);
	return asking->ret;
}

static int start_gateway(const struct attach_spec *spec, const struct attachment *attachment,
			 const struct key *key, struct error *err)
{
	struct asking asking = { .spec = spec };
	const struct gateway_spec gateway = {
		.socket = attachment->socket,
		.locator = spec->locator,
		.header = spec->header,
		.metrics = spec->metrics,
		.key = key,
		.ask = attach_ask_key,
		.ask_opaque = &asking,
		.unlock = spec->unlock,
		.connections = spec->connections,
		.answer_timeout = spec->answer_timeout,
		.reconnect = spec->reconnect,
		.unflushed = spec->unflushed,
		.wait = spec->wait_first ? spec->reconnect : 0,
		.read_only = spec->read_only,
		.discard = spec->discard,
	};
	int ret = gateway_start(&gateway, err);

	return ret < 0 && asking.ret == 0 ? step_failed(ret, "starting the gateway", err) : ret;
}

/* Seconds. A file is never away. */
static unsigned reconnect_of(const struct attach_spec *spec)
{
	return locator_is_uri(spec->locator) ? spec->reconnect : 0;
}

/* Seconds. What the gateway holds isn't the kernel's to fail: it comes to nothing, or to an error,
 * when the server has been silent and then away for as long as it may. */
static unsigned kernel_timeout(const struct attach_spec *spec)
{
	unsigned answer = spec->answer_timeout ? spec->answer_timeout : NBD_ANSWER_TIMEOUT;
	unsigned reconnect = reconnect_of(spec);

	return spec->timeout + (reconnect ? answer + reconnect : 0);
}

static int save_facts(const struct attach_spec *spec, const struct attachment *attachment,
		      struct error *err)
{
	char *path = locator_is_uri(spec->locator) ? NULL : realpath(spec->locator, NULL);
	struct kernel_device_facts device;
	struct attachment_facts facts = {
		.locator = path ? path : (char *)spec->locator,
		.connections = spec->connections,
		.timeout = spec->timeout,
		.reconnect = reconnect_of(spec),
	};
	int ret;

	kernel_device_facts(attachment->index, &device);
	facts.before = device.counts;
	ret = attachment_save(attachment, &facts, err);

	free(path);
	return ret < 0 ? step_failed(ret, "noting what is attached", err) : 0;
}

static int connect_kernel(const struct attach_spec *spec, const struct attachment *attachment,
			  unsigned block_size, struct error *err)
{
	const struct kernel_device_connect connect = {
		.socket = attachment->socket,
		.connections = spec->connections,
		.block_size = block_size,
		.timeout = kernel_timeout(spec),
	};

	return kernel_device_connect(attachment->index, &connect, err);
}

/* Says why a disk's partitions aren't found, where its table counts in other sectors. */
static void look_at_partitions(unsigned index, unsigned block_size)
{
	uint8_t first[8192];
	unsigned sector;
	char path[32];
	ssize_t len = 0;
	off_t size = -1;
	int fd;

	snprintf(path, sizeof(path), "/dev/nbd%u", index);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = pread(fd, first, sizeof(first), 0);
		size = lseek(fd, 0, SEEK_END);
		close(fd);
	}
	sector = len > 0 && size > 0 ? partition_table_sector(first, len, size) : 0;
	OPENSSL_cleanse(first, sizeof(first));
	if (sector && sector != block_size)
		say_error(
			"warning: %s has a partition table for sectors of %u bytes, and is attached "
			"with %u: its partitions are only found with --block-size %u",
			path, sector, block_size, sector);
}

static int attach_claimed(const struct attach_spec *spec, const struct attachment *attachment,
			  const struct key *key, struct error *err)
{
	unsigned block_size = spec->block_size;
	int ret = start_gateway(spec, attachment, key, err);

	if (ret < 0)
		return ret;
	/* The machine is left as it is if there is nothing to attach. */
	ret = kernel_device_load_module(err);
	if (ret == 0 && !block_size) {
		ret = gateway_sector(attachment->socket, &block_size, err);
		if (ret < 0)
			ret = step_failed(ret, "asking the gateway", err);
	}
	/* Before the kernel has it, so that it is never attached and unknown. */
	if (ret == 0)
		ret = save_facts(spec, attachment, err);
	if (ret == 0)
		ret = connect_kernel(spec, attachment, block_size, err);
	if (ret < 0) {
		gateway_stop(attachment->socket, true, NULL);
		kernel_device_let_go_dead(attachment->index);
		return ret;
	}
	look_at_partitions(attachment->index, block_size);
	return 0;
}

/* key: or NULL, it is asked for */
static int attach_with_key(const struct attach_spec *spec, const struct key *key, unsigned *index,
			   struct error *err)
{
	struct attachment attachment;
	int ret = spec->index == ATTACH_ANY ? claim_any(&attachment, err) :
					      claim(&attachment, spec->index, err);

	if (ret < 0)
		return ret;
	*index = attachment.index;
	ret = attach_claimed(spec, &attachment, key, err);
	if (ret < 0)
		attachment_remove(&attachment, NULL);
	else
		attachment_unlock(&attachment);
	return ret;
}

static int check_device(const struct attach_spec *spec, struct error *err)
{
	struct attachment attachment;
	int ret;

	if (geteuid() != 0)
		return error_set(err, EPERM, "only root can attach a device");
	if (spec->index == ATTACH_ANY)
		return attachment_init(&attachment, 0, err);
	/* One that is disconnected and still open somewhere is about to be free. */
	if (kernel_device_attached(spec->index) && kernel_device_readers(spec->index) == 0)
		kernel_device_wait_free(spec->index, GOING_MS);
	ret = refuse_attached(spec->index, err);
	return ret < 0 ? ret : attachment_init(&attachment, spec->index, err);
}

/* It is noted for others to see. */
static int check_uri(const char *text, struct error *err)
{
	struct nbd_uri uri;
	int ret = nbd_uri_parse(text, &uri, err);

	if (ret == 0 && uri.socket && uri.socket[0] != '/')
		ret = error_set(err, EINVAL, "%s: the path of the socket must be absolute", text);
	nbd_uri_clear(&uri);
	return ret;
}

/* A file system that is mounted there would not see what is written. */
static int check_block_device(const struct attach_spec *spec, struct error *err)
{
	struct stat st;
	int fd;

	if (spec->read_only || stat(spec->locator, &st) < 0 || !S_ISBLK(st.st_mode))
		return 0;
	fd = device_claim(spec->locator, err);
	if (fd >= 0)
		close(fd);
	return fd == -EBUSY ? fd : 0; /* opening it tells what else is wrong */
}

static int refuse_same(const struct attach_spec *spec, unsigned index, struct error *err)
{
	struct attachment_facts facts;
	struct kernel_device_facts device;
	struct attachment other;
	int ret = 0;

	kernel_device_facts(index, &device);
	if (!kernel_device_attached(index) || (spec->read_only && device.read_only) ||
	    attachment_init(&other, index, NULL) < 0)
		return 0;
	/* A device that is attached may itself be a disk to attach. */
	if (attachment_load(&other, &facts, NULL) == 0 &&
	    same_bytes(NULL, &(struct same_part){ .locator = spec->locator },
		       &(struct same_part){ .locator = facts.locator }))
		ret = error_set(err, EBUSY,
				"%s is attached already, as /dev/nbd%u: two devices would "
				"not see what the other writes",
				spec->locator, index);
	attachment_facts_clear(&facts);
	return ret;
}

static int check_not_attached(const struct attach_spec *spec, struct error *err)
{
	unsigned indices[KERNEL_DEVICES_MAX];
	int count = attachment_list(indices, KERNEL_DEVICES_MAX, err);
	int ret = count < 0 ? count : 0;

	for (int i = 0; ret == 0 && i < count; i++)
		ret = refuse_same(spec, indices[i], err);
	return ret;
}

static int check_locator(const struct attach_spec *spec, struct error *err)
{
	int ret = locator_kind(spec->locator, err);

	if (ret == LOCATOR_URI)
		ret = check_uri(spec->locator, err);
	else if (ret == LOCATOR_PATH)
		ret = check_block_device(spec, err);
	if (ret == 0 && spec->header)
		ret = locator_check_path(spec->header, "a LUKS header", err);
	if (ret == 0 && spec->unlock.trust)
		ret = locator_check_path(spec->unlock.trust, "a trust file", err);
	if (ret == 0 && !spec->read_only)
		ret = clash_refuse_key(spec->locator, &spec->key, err);
	return ret < 0 ? ret : check_not_attached(spec, err);
}

/* They are looked for again where they are run; this is before anything is asked or done. */
static int check_programs(struct error *err)
{
	char path[PATH_MAX];
	int ret = server_program_find(path, err);

	return ret < 0 ? ret : program_find("nbd-client", "nbd-client", path, err);
}

/* Where the tokens come first, only what they don't open needs it. */
static bool has_key_at_once(const struct attach_spec *spec)
{
	return key_source_given(&spec->key) && !spec->unlock.by_tokens;
}

/* All that is found out before anything is done. */
static int attach_prepare(const struct attach_spec *spec, struct key *key, struct error *err)
{
	int ret = check_device(spec, err);

	if (ret == 0)
		ret = check_programs(err);
	if (ret == 0)
		ret = check_locator(spec, err);
	if (ret == 0 && has_key_at_once(spec))
		ret = key_read(&spec->key, NULL, false, key, err);
	return ret;
}

int attach(const struct attach_spec *spec, unsigned *index, struct error *err)
{
	struct key key = { 0 };
	int ret = attach_prepare(spec, &key, err);

	if (ret == 0) {
		interrupt_catch(-1);
		ret = attach_with_key(spec, has_key_at_once(spec) ? &key : NULL, index, err);
	}
	key_clear(&key);
	return ret;
}

/* ---- letting go ---- */

struct users {
	unsigned index;
	pid_t one; /* of them, or 0 */
};

static bool device_is_unused(void *opaque)
{
	struct users *users = opaque;

	users->one = kernel_device_user(users->index);
	return users->one == 0;
}

/* While fd is open nobody can mount it, and it only goes away when that is closed. Who has it open
 * without a claim, like qemu or dd, doesn't fail our own, but loses what he writes from now on. */
static int flush_and_disconnect(const struct attachment *attachment, int fd, struct error *err)
{
	const unsigned index = attachment->index;
	struct users users = { .index = index };
	int ret;

	if (!patience(UNUSED_MS, device_is_unused, &users))
		return error_set(err, EBUSY, "/dev/nbd%u is in use: process %d has it open", index,
				 users.one);
	ret = flush_device(attachment, fd, err);
	if (ret < 0)
		return ret;
	interrupt_defer(); /* or a gateway stays that serves nobody */
	return kernel_device_disconnect(index, err);
}

static int detach_gently(const struct attachment *attachment, struct error *err)
{
	unsigned index = attachment->index;
	int fd, ret;

	if (kernel_device_attached(index)) {
		fd = kernel_device_claim(index, err);
		if (fd < 0)
			return fd;
		ret = flush_and_disconnect(attachment, fd, err);
		close(fd);
		if (ret == 0 && kernel_device_wait_free(index, FREE_MS) < 0)
			ret = error_set(err, EBUSY,
					"/dev/nbd%u is disconnected, but still open "
					"somewhere: detach it once more after that",
					index);
		if (ret < 0)
			return ret;
	}
	return gateway_stop(attachment->socket, false, err);
}

/* The gateway goes first: what it still had would otherwise reach the server later, when others
 * may have written there. */
static int detach_forced(const struct attachment *attachment, struct error *err)
{
	unsigned index = attachment->index;
	int ret;

	interrupt_defer(); /* or a device stays that nobody serves */
	ret = gateway_stop(attachment->socket, true, err);
	if (ret == 0 && kernel_device_attached(index)) {
		ret = kernel_device_disconnect(index, err);
		if (ret == 0 && kernel_device_wait_free(index, FREE_MS) < 0)
			say_error(
				"/dev/nbd%u is disconnected, but still open somewhere: it is free "
				"for others after that (umount?)",
				index);
	}
	return ret;
}

int detach(unsigned index, bool force, struct error *err)
{
	struct attachment attachment;
	int ret;

	if (geteuid() != 0)
		return error_set(err, EPERM, "only root can detach a device");
	ret = attachment_init(&attachment, index, err);
	if (ret < 0)
		return ret;
	if (!attachment_exists(&attachment))
		return error_set(err, ENODEV, "/dev/nbd%u: ndio attach knows nothing of it", index);
	ret = attachment_lock(&attachment, err);
	if (ret < 0)
		return ret;
	ret = force ? detach_forced(&attachment, err) : detach_gently(&attachment, err);
	if (ret < 0) {
		attachment_unlock(&attachment);
		return ret;
	}
	return attachment_remove(&attachment, err);
}
