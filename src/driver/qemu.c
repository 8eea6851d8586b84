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

static int create(struct loop *l, struct keeper *k, const struct machine_spec *s,
		  const struct machine_events *ev, struct machine **ret, struct err *e)
{
	int r = probe(k, e);

	if (r < 0)
		return r;
	if (s->root_fd < 0 || s->kernel_fd < 0 || s->initrd_fd < 0)
		return err_set(e, ERR_INVALID, "a machine needs an image, a kernel and an initial file system");
	if (s->n_drives != 1 || s->drives[0].fd < 0 || s->drives[0].read_only)
		return err_set(e, ERR_INVALID, "a machine takes one writable disk behind its image");
	*ret = kept_new(l, k, &s->id, ev);
	return 0;
}

static int start(struct machine *m, const struct machine_spec *s, struct driver_req *r, struct err *e)
{
	const int fds[] = {s->root_fd, s->drives[0].fd, s->kernel_fd, s->initrd_fd};
	const struct rec_machine_start rec = {
		.id = s->id,
		.kind = KIND_QEMU,
		.kvm = kept_host(m)->kvm,
		.vcpus = s->vcpus,
		.memory_mb = s->memory_mb,
		.disk_mb = s->disk_mb,
		.lease_ms = s->lease_ms,
		.unenforced = s->unenforced,
	};

	return kept_start(m, &rec, fds, ARRAY_LEN(fds), r, e);
}

const struct driver driver_qemu = {
	.name = "qemu",
	.caps = DRIVER_OWN_KERNEL | DRIVER_NEEDS_IMAGE,
	.wall = wall,
	.probe = probe,
	.create = create,
	.start = start,
	.adopt = kept_adopt,
	.take_link = kept_take_link,
	.pid = kept_pid,
	.usage = kept_usage,
	.stop = kept_stop,
	.destroy = kept_destroy,
	.forget = kept_forget,
};
