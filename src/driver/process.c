/* driver/process.c - namespaces on the host's kernel: the weaker wall, only when asked for */
#include "base/macro.h"
#include "driver/kept.h"
#include "keeper/keeper.h"
#include "wire/gen/records.h"

enum { KIND_PROCESS = 1 }; /* machine_start.kind */

static const char *wall(const struct keeper *k)
{
	(void)k;
	return "process";
}

static int probe(const struct keeper *k, struct err *e)
{
	const struct keeper_host *h = keeper_host(k);

	if (h->process_reason[0])
		return err_set(e, ERR_UNSUPPORTED, "%s", h->process_reason);
	if (!h->opens_trees)
		return err_set(e, ERR_UNSUPPORTED,
			       "the keeper that runs (pid %d, version %s) is older than this daemon and would take a "
			       "process sandbox's files from wherever it is told; end the sandboxes, then type: "
			       "kill %d; the next command starts a new one", h->pid, h->version, h->pid);
	return 0;
}

static int create(struct loop *l, struct keeper *k, const struct machine_spec *s,
		  const struct machine_events *ev, struct machine **ret, struct err *e)
{
	int r = probe(k, e);

	if (r < 0)
		return r;
	if (!s->image)
		return err_set(e, ERR_INVALID, "a process sandbox needs a template");
	if (s->n_layers)
		return err_set(e, ERR_UNSUPPORTED, "a process sandbox has no disk");
	*ret = kept_new(l, k, &s->id, ev);
	return 0;
}

static int start(struct machine *m, const struct machine_spec *s, struct driver_req *r, struct err *e)
{
	const struct rec_machine_start rec = {
		.id = s->id,
		.kind = KIND_PROCESS,
		.vcpus = s->vcpus,
		.memory_mb = s->memory_mb,
		.disk_mb = s->disk_mb,
		.pids_max = s->pids_max,
		.lease_ms = s->lease_ms,
		.unenforced = s->unenforced,
		.forked = s->memory_fd >= 0,
		.image = span_of(s->image),
	};

	return kept_start(m, &rec, &s->memory_fd, rec.forked ? 1 : 0, r, e);
}

const struct driver driver_process = {
	.name = "process",
	.caps = DRIVER_CAN_COPY_FILES,
	.wall = wall,
	.probe = probe,
	.create = create,
	.start = start,
	.adopt = kept_adopt,
	.take_link = kept_take_link,
	.pid = kept_pid,
	.usage = kept_usage,
	.capture = kept_copy_files,
	.stop = kept_stop,
	.destroy = kept_destroy,
	.forget = kept_forget,
};
