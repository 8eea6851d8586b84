/* driver/qemu.c - a machine with a kernel of its own: with KVM `vm`, without it `vm-emulated` */
#include "base/macro.h"
#include "driver/kept.h"
#include "keeper/keeper.h"
#include "wire/gen/records.h"

enum { KIND_QEMU = 2 }; /* machine_start.kind */

static const char *wall(const struct keeper *k)
{
	return k && keeper_host(k)->kvm ? "vm" : "vm-emulated";
}

static int probe(const struct keeper *k, struct err *e)
{
	const struct keeper_host *h;

	if (!k)
		return err_set(e, ERR_UNSUPPORTED, "machines need a keeper, and there is none");
	h = keeper_host(k);
	if (h->qemu[0] == '\0')
		return err_set(e, ERR_UNSUPPORTED, "%s",
			       h->qemu_reason[0] ? h->qemu_reason : "the keeper found no QEMU");
	return 0;
}

static void extra(const struct keeper *k, unsigned *ret_mb, unsigned *ret_permille)
{
	bool kvm = k && keeper_host(k)->kvm;

	*ret_mb = (kvm ? 0 : KEEPER_TB_MB) + KEEPER_HEAP_MB;
	*ret_permille = KEEPER_TABLES_PERMILLE;
}

static bool is_fork(const struct machine_spec *s)
{
	return s->memory_fd >= 0;
}

static int create(struct loop *l, struct keeper *k, const struct machine_spec *s,
		  const struct machine_events *ev, struct machine **ret, struct err *e)
{
	int r = probe(k, e);

	if (r < 0)
		return r;
	if (s->root_fd < 0 || (!is_fork(s) && (s->kernel_fd < 0 || s->initrd_fd < 0)))
		return err_set(e, ERR_INVALID, "a machine needs an image, a kernel and an initial file system");
	if (is_fork(s) && s->state_fd < 0)
		return err_set(e, ERR_INVALID, "a fork needs memory and state");
	if (s->n_layers < 1 || s->n_layers > LIMIT_DISK_LAYERS)
		return err_set(e, ERR_INVALID, "a machine takes a disk of 1 to %d layers", LIMIT_DISK_LAYERS);
	*ret = kept_new(l, k, &s->id, ev);
	return 0;
}

static int start(struct machine *m, const struct machine_spec *s, struct driver_req *r, struct err *e)
{
	int fds[LIMIT_DISK_LAYERS + 3];
	unsigned n = 0;
	const struct rec_machine_start rec = {
		.id = s->id,
		.kind = KIND_QEMU,
		.kvm = kept_host(m)->kvm,
		.vcpus = s->vcpus,
		.memory_mb = s->memory_mb,
		.disk_mb = s->disk_mb,
		.lease_ms = s->lease_ms,
		.unenforced = s->unenforced,
		.forked = is_fork(s),
		.layers = s->n_layers,
		.closure = span_of(s->closure),
	};

	fds[n++] = s->root_fd;
	for (unsigned i = 0; i < s->n_layers; i++)
		fds[n++] = s->layers[i];
	fds[n++] = is_fork(s) ? s->memory_fd : s->kernel_fd;
	fds[n++] = is_fork(s) ? s->state_fd : s->initrd_fd;
	return kept_start(m, &rec, fds, n, r, e);
}

const struct driver driver_qemu = {
	.name = "qemu",
	.caps = DRIVER_OWN_KERNEL | DRIVER_NEEDS_IMAGE | DRIVER_CAN_CAPTURE,
	.wall = wall,
	.probe = probe,
	.extra = extra,
	.create = create,
	.start = start,
	.adopt = kept_adopt,
	.load = kept_load,
	.take_link = kept_take_link,
	.pid = kept_pid,
	.top = kept_top,
	.lacks_room = kept_lacks_room,
	.usage = kept_usage,
	.capture = kept_capture,
	.capture_now = kept_capture_now,
	.flatten = kept_flatten,
	.resume = kept_resume,
	.stop = kept_stop,
	.destroy = kept_destroy,
	.forget = kept_forget,
};
