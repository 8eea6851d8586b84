/* keeper/host.c - measure the host */
#include "keeper/host.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "keeper/jail_process.h"
#include "keeper/trees.h"
#include "sys/cgroup.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { TSC_MS = 50 };

static void keep(char ret[HOST_REASON_MAX], const char *text)
{
	(void)snprintf(ret, HOST_REASON_MAX, "%s", text);
}

static void probe_kvm(enum host_kvm choice, struct kvm_probe *ret)
{
	kvm_probe(ret);
	if (choice == HOST_KVM_YES && ret->runs)
		ret->usable = true;
	if (choice == HOST_KVM_NO) {
		ret->usable = false;
		(void)snprintf(ret->reason, sizeof(ret->reason), "switched off: the keeper was told --kvm no");
	}
}

static void probe_groups(const char *name, struct host *h)
{
	int r = cgroup_root_open(name, &h->groups);

	if (r == 0) {
		h->limits = cgroup_root_limits(h->groups);
		return;
	}
	h->groups = NULL;
	(void)snprintf(h->groups_reason, sizeof(h->groups_reason),
		       "no cgroup can be made here (%s)%s", strerror(-r),
		       h->root ? "" : ": start a systemd user session, or run hotcell as root");
}

static void probe_qemu(const struct host_paths *p, struct host *h)
{
	char closures[HOST_PATH_MAX + 16];
	struct err e = ERR_INIT;

	(void)snprintf(closures, sizeof(closures), "%s/closures", p->state);
	h->has_qemu = qemu_host_probe(p->qemu[0] ? p->qemu : NULL, closures, h->root, &h->qemu, &e) == 0;
	if (!h->has_qemu)
		keep(h->qemu_reason, e.text);
}

/* With an empty folder where the templates are: the file system matters. */
static int try_jail(struct host *h, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	int r = trees_open_trial(h->images_fd, &folder, e);

	if (r < 0)
		return r;
	r = process_probe(h->process, folder, HOST_UID_TRIAL, e);
	trees_close_trial(h->images_fd);
	return r;
}

static void probe_process(const struct host_paths *p, struct host *h)
{
	struct err e = ERR_INIT;
	int r;

	if (!h->root) {
		keep(h->process_reason,
		     "process sandboxes need root's keeper (id ranges, owner shifts, cgroups): start hotcell "
		     "as root, or use machines, which run under your own uid");
		return;
	}
	r = trees_open(p->state, &h->images_fd, &e);
	if (r == 0)
		r = process_host_open(p->init, &h->process, &e);
	if (r == 0)
		r = try_jail(h, &e);
	if (r == 0)
		return;
	keep(h->process_reason, e.text);
	h->process = process_host_close(h->process);
}

void host_probe(const struct host_paths *p, const char *groups, struct host *ret)
{
	*ret = (struct host){.root = geteuid() == 0, .qemu = QEMU_HOST_INIT, .images_fd = -1};
	if (sys_tsc_khz(TSC_MS, &ret->tsc_khz) < 0)
		ret->tsc_khz = 0;
	probe_kvm(p->kvm, &ret->kvm);
	probe_groups(groups, ret);
	probe_qemu(p, ret);
	probe_process(p, ret);
}

void host_deinit(struct host *h)
{
	if (h->has_qemu)
		qemu_host_deinit(&h->qemu);
	h->process = process_host_close(h->process);
	h->images_fd = sys_close(h->images_fd);
	h->groups = cgroup_root_close(h->groups);
}
