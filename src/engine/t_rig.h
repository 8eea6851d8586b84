/*
 * engine/t_rig.h - for t_*.c only: an engine on the null driver under a fake clock,
 * with agents that are doubles and a client that speaks the real protocol.
 */
#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/testing.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "driver/driver.h"
#include "driver/null.h"
#include "engine/engine.h"
#include "image/store.h"
#include "snap/layers.h"
#include "snap/set.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "store/store.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { RIG_AGENTS = 64, RIG_TURNS = 5000, RIG_UID = 1000 };

/* What the double of an agent does. */
enum agent_mode {
	AGENT_GOOD,
	AGENT_HANGS_UP,	    /* closes its link at once */
	AGENT_MUTE,	    /* never says a word */
	AGENT_BABBLES,	    /* answers its setup with bytes that are no frames */
	AGENT_REFUSES,	    /* answers its setup with a failure */
	AGENT_IGNORES,	    /* takes the setup and never answers */
	AGENT_NOT_SEEDED,   /* proof without its parts, one by one */
	AGENT_WRONG_NAME,
	AGENT_WRONG_CLOCK,
	AGENT_WRONG_WALL,
	AGENT_BAD_RECORD,   /* answers its setup with bytes that are no record */
	AGENT_MODE_N,
};

/* How it answers one method. */
enum answer {
	ANSWER_TEST, /* the test does: agent_double.call */
	ANSWER_OK,
	ANSWER_FAIL,
	ANSWER_NEVER,	 /* agent_double.owed has it */
	ANSWER_HANGS_UP, /* the link ends instead */
};

struct rig;

/* The double of hotcell-init at the far end of a machine's link. */
struct agent_double {
	struct rig *rig;
	struct link *link;
	struct id id;
	struct stream *call; /* the last exec.start or exec.attach, open */
	struct stream *owed; /* what was not answered, open */
	uint64_t got;	     /* bytes of input */
	bool call_over, is_frozen, was_forked;
	unsigned setups, freezes, thaws;
	unsigned generation;
	char programs[256]; /* run in it, with ANSWER_OK and ANSWER_FAIL: "sync;python=1;" */
};

struct rig {
	char dir[64];
	struct loop *loop;
	struct store *store;
	struct engine *engine;
	struct engine_host host;
	struct engine_config config;
	struct engine_wall walls[2];
	struct driver driver;
	struct null_script script;
	struct link *client;
	struct agent_double agents[RIG_AGENTS];
	unsigned n_agents;
	enum agent_mode mode;
	bool ready, over;
	struct err over_why;
	unsigned uids[1];
	uint64_t epoch;
	/* what the host was asked for; counted on worker threads */
	_Atomic int disks, layers, sets, images_fail, disks_fail, sets_fail;
	_Atomic bool disks_stay; /* they can't be removed */
	_Atomic bool image_blocks;
	_Atomic int image_builds; /* a new one has another digest */
	int programs_status; /* with which they end */
	enum answer freeze, thaw, programs; /* of agents; freeze and thaw: ANSWER_TEST is ANSWER_OK */
	unsigned froze, thawed, started;    /* how often they were asked for that */
	unsigned log_lines;
	enum answer pings; /* to the engine's own; ANSWER_TEST is ANSWER_OK */
	unsigned n_pings, programs_left; /* it says that so many run */
};

/* ---- the host's side ---- */

static inline int rig_image_open(void *arg, const char *ref, struct image *ret, struct err *e)
{
	struct rig *r = arg;

	while (r->image_blocks)
		(void)usleep(100); /* a worker thread may block; the loop goes on */
	if (r->images_fail || strcmp(ref, "missing") == 0)
		return err_set(e, ERR_NOT_FOUND, "there is no template %s", ref);
	*ret = (struct image)IMAGE_INIT;
	(void)snprintf(ret->digest, sizeof(ret->digest), "%064d", 7 + r->image_builds);
	ret->defaults.memory_mb = 256;
	ret->root_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ret->tree_fd = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret->dir_fd = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return 0;
}

static inline int rig_disk_make(void *arg, const char *id, uint64_t mb, int *ret_fd, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	T_UNUSED(mb);
	if (r->disks_fail)
		return err_set(e, ERR_LIMIT, "the disk is full");
	*ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	r->disks++;
	return 0;
}

static inline int rig_disk_remove(void *arg, const char *id, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	if (r->disks_stay)
		return err_set(e, ERR_INTERNAL, "the disk is read-only");
	if (r->disks > 0)
		r->disks--;
	return 0;
}

static inline int rig_layers(struct rig *r, unsigned n, struct layers *ret, struct err *e)
{
	if (r->disks_fail)
		return err_set(e, ERR_LIMIT, "the disk is full");
	*ret = (struct layers)LAYERS_INIT;
	for (; ret->n < n; ret->n++)
		ret->fds[ret->n] = open("/dev/null", O_RDWR | O_CLOEXEC);
	return 0;
}

static inline int rig_layers_open(void *arg, const struct id *id, struct layers *ret, struct err *e)
{
	T_UNUSED(id);
	return rig_layers(arg, 1, ret, e);
}

static inline int rig_layers_add(void *arg, const struct id *id, unsigned n, uint64_t bytes, int *ret_fd,
				 struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	T_UNUSED(n);
	T_UNUSED(bytes);
	if (r->disks_fail)
		return err_set(e, ERR_LIMIT, "the disk is full");
	*ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	r->layers++;
	return 0;
}

static inline int rig_layers_seal(void *arg, const struct id *id, unsigned n, struct err *e)
{
	T_UNUSED(arg);
	T_UNUSED(id);
	T_UNUSED(n);
	T_UNUSED(e);
	return 0;
}

static inline int rig_layers_drop(void *arg, const struct id *id, unsigned n, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	T_UNUSED(n);
	T_UNUSED(e);
	r->layers--;
	return 0;
}

static inline int rig_layers_link(void *arg, const char *from, unsigned n, const struct id *to, uint64_t bytes,
				  struct layers *ret, struct err *e)
{
	struct rig *r = arg;
	int result = rig_layers(r, n + 1, ret, e);

	T_UNUSED(from);
	T_UNUSED(to);
	T_UNUSED(bytes);
	r->disks += result == 0;
	return result;
}

static inline int rig_layers_rollback(void *arg, const struct id *id, const struct id *set, unsigned n,
				      uint64_t bytes, struct layers *ret, struct err *e)
{
	T_UNUSED(id);
	T_UNUSED(set);
	T_UNUSED(bytes);
	return rig_layers(arg, n + 1, ret, e);
}

static inline int rig_set_save(void *arg, struct snap_manifest *m, int memory_fd, int state_fd,
			       const char *layers_from, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(layers_from);
	if (r->sets_fail)
		return err_set(e, ERR_LIMIT, "the disk is full");
	if (memory_fd < 0 || state_fd < 0)
		return err_set(e, ERR_INTERNAL, "nothing to save");
	m->memory_bytes = 4096;
	r->sets++;
	return 0;
}

static inline int rig_set_load(void *arg, const struct id *id, struct snap_set *ret, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	if (r->sets_fail)
		return err_set(e, ERR_INVALID, "the memory is damaged");
	ret->memory_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	ret->state_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return 0;
}

static inline int rig_set_disk_check(void *arg, const struct id *id, struct err *e)
{
	T_UNUSED(arg);
	T_UNUSED(id);
	T_UNUSED(e);
	return 0;
}

static inline int rig_set_remove(void *arg, const struct id *id, struct err *e)
{
	struct rig *r = arg;

	T_UNUSED(id);
	T_UNUSED(e);
	r->sets--;
	return 0;
}

static inline int rig_random(void *arg, void *p, size_t n)
{
	T_UNUSED(arg);
	return getrandom(p, n, 0) == (ssize_t)n ? 0 : -EIO;
}

static inline void rig_close_fd(void *arg, int fd)
{
	T_UNUSED(arg);
	(void)close(fd);
}

static inline void rig_log(void *arg, const char *line)
{
	struct rig *r = arg;

	assert_null(strchr(line, '\n'));
	assert_null(strchr(line, '\033'));
	if (getenv("RIG_LOG"))
		print_message("%s\n", line);
	r->log_lines++;
}

static inline void rig_ready(void *arg)
{
	((struct rig *)arg)->ready = true;
}

static inline void rig_over(void *arg, const struct err *why)
{
	struct rig *r = arg;

	assert_false(r->over);
	r->over = true;
	err_copy(&r->over_why, why);
}

/* ---- the double of an agent ---- */

static inline void agent_babble(struct link *k)
{
	char junk[200];

	memset(junk, 0x5a, sizeof(junk));
	(void)!write(link_fd(k), junk, sizeof(junk));
}

static inline void agent_owed_closed(struct stream *s, const struct err *why)
{
	struct agent_double *a = stream_arg(s);

	T_UNUSED(why);
	if (a->owed == s)
		a->owed = NULL;
}

/* Return: it is not to succeed, and was dealt with. */
static inline bool agent_evades(struct agent_double *a, struct stream *s, enum answer how, int code, const char *text)
{
	static const struct stream_ops owed = {.closed = agent_owed_closed};
	struct err e = ERR_INIT;

	if (how == ANSWER_FAIL) {
		err_set(&e, code, "%s", text);
		stream_fail(s, &e);
	} else if (how == ANSWER_NEVER) {
		stream_accept(s, &owed, a);
		a->owed = s;
	} else if (how == ANSWER_HANGS_UP) {
		a->owed = NULL;
		a->link = link_free(a->link);
	}
	return how == ANSWER_FAIL || how == ANSWER_NEVER || how == ANSWER_HANGS_UP;
}

static inline void agent_answer_freeze(struct agent_double *a, struct stream *s, bool freezes)
{
	static const struct stream_ops none;
	enum answer how = freezes ? a->rig->freeze : a->rig->thaw;

	++*(freezes ? &a->rig->froze : &a->rig->thawed);

	*(freezes ? &a->freezes : &a->thaws) += 1;
	if (freezes ? agent_evades(a, s, how, ERR_BUSY, "the workload did not stop within 100 ms")
		    : agent_evades(a, s, how, ERR_INTERNAL, "the cgroup is gone"))
		return;
	a->is_frozen = freezes;
	stream_accept(s, &none, NULL);
	(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0, NULL);
}

/* What it prints, and how it ends. */
static inline void agent_ends_program(struct stream *s, bool is_code, int status)
{
	const struct rec_exec_exit exited = {.code = status, .reason = span_of("exited")};
	const struct rec_code_end end = {.status = span_of(status ? "error" : "ok"), .exit_code = status};
	struct str said = STR_INIT(512);

	str_add_mem(&said, "\1\4\0\0said", 8);
	str_add_mem(&said, is_code ? "\6\0\0\0" : "\4\0\0\0", 4);
	if (is_code)
		assert_int_equal(rec_encode(&rec_code_end_type, &end, &said, NULL), 0);
	else
		assert_int_equal(rec_encode(&rec_exec_exit_type, &exited, &said, NULL), 0);
	said.p[9] = (char)(said.len - 12);
	(void)stream_send(s, said.p, said.len);
	str_deinit(&said);
}

/* What runs in it on its own: sync before a snapshot, the list of a template. */
static inline void agent_runs(struct agent_double *a, struct stream *s, unsigned method, struct span payload)
{
	static const struct stream_ops none;
	struct rec_exec_start x = {0};
	struct rec_code_run c = {0};
	bool is_code = method == METHOD_CODE_RUN;
	size_t n = strlen(a->programs);

	a->rig->started++;
	assert_int_equal(rec_decode(is_code ? &rec_code_run_type : &rec_exec_start_type, payload.p, payload.n,
				    is_code ? (void *)&c : (void *)&x, NULL), 0);
	(void)snprintf(a->programs + n, sizeof(a->programs) - n, "%.*s%s%.*s;", (int)c.language.n,
		       c.language.p ? c.language.p : "", is_code ? "=" : "",
		       (int)(is_code ? c.source : x.command).n, (is_code ? c.source : x.command).p);
	if (agent_evades(a, s, a->rig->programs, ERR_NOT_FOUND, "no such program"))
		return;
	stream_accept(s, &none, NULL);
	if (is_code)
		(void)stream_reply(s, &rec_code_started_type, &(struct rec_code_started){0}, true, NULL, 0, NULL);
	else
		(void)stream_reply(s, &rec_exec_started_type, &(struct rec_exec_started){0}, true, NULL, 0, NULL);
	agent_ends_program(s, is_code, a->rig->programs_status);
	stream_end(s);
}

static inline void agent_answer_setup(struct agent_double *a, struct stream *s, struct span payload)
{
	struct rec_guest_setup in;
	struct rec_guest_ready out = {.agent = span_of("double"), .seeded = true, .boot_us = 5};
	struct err e = ERR_INIT;

	a->setups++;
	assert_int_equal(rec_decode(&rec_guest_setup_type, payload.p, payload.n, &in, &e), 0);
	assert_int_equal(in.seed.n, 32);
	assert_false(id_is_zero(&in.machine_id));
	a->was_forked = out.thawed = in.forked;
	out.time_ns = in.time_ns;
	out.hostname = in.hostname;
	out.wall = span_of(a->rig->driver.caps & DRIVER_OWN_KERNEL ? "vm" : "process");
	switch (a->rig->mode) {
	case AGENT_REFUSES:
		err_set(&e, ERR_INTERNAL, "no entropy device");
		stream_fail(s, &e);
		return;
	case AGENT_IGNORES: return;
	case AGENT_BABBLES: agent_babble(a->link); return;
	case AGENT_NOT_SEEDED: out.seeded = false; break;
	case AGENT_WRONG_NAME: out.hostname = span_of("other"); break;
	case AGENT_WRONG_CLOCK: out.time_ns -= 3600 * NS_PER_S; break;
	case AGENT_WRONG_WALL: out.wall = span_of("bare metal"); break;
	case AGENT_BAD_RECORD: stream_reply_raw(s, (struct span){"\1\0\377\377\377\377", 6}, false); return;
	default: break;
	}
	assert_int_equal(stream_reply(s, &rec_guest_ready_type, &out, false, NULL, 0, &e), 0);
}

/* The engine's own; a client's is the test's to answer. */
static inline bool agent_answers_ping(struct agent_double *a, struct stream *s, struct span payload)
{
	static const struct stream_ops none;
	const struct rec_guest_health health = {.sessions = a->rig->programs_left};
	struct rec_sandbox_ref in;

	assert_int_equal(rec_decode(&rec_sandbox_ref_type, payload.p, payload.n, &in, NULL), 0);
	if (!span_is(in.sandbox, "hotcelld"))
		return false;
	a->rig->n_pings++;
	if (agent_evades(a, s, a->rig->pings, ERR_INTERNAL, "no"))
		return true;
	stream_accept(s, &none, NULL);
	(void)stream_reply(s, &rec_guest_health_type, &health, false, NULL, 0, NULL);
	return true;
}

static inline void agent_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct agent_double *a = stream_arg(s);

	T_UNUSED(offset);
	a->got += bytes.n;
	stream_consumed(s, bytes.n);
}

static inline void agent_end(struct stream *s, uint64_t offset)
{
	T_UNUSED(s);
	T_UNUSED(offset);
}

static inline void agent_closed(struct stream *s, const struct err *why)
{
	struct agent_double *a = stream_arg(s);

	T_UNUSED(why);
	a->call = NULL;
	a->call_over = true;
}

static inline void agent_request(struct link *k, struct stream *s, unsigned method,
				 struct span payload, const int *fds, unsigned n_fds)
{
	static const struct stream_ops ops = {
		.data = agent_data, .end = agent_end, .closed = agent_closed};
	static const struct stream_ops deaf = {0};
	struct agent_double *a = link_arg(k);

	T_UNUSED(fds);
	T_UNUSED(n_fds);
	if (method == METHOD_GUEST_SETUP) {
		stream_accept(s, &deaf, NULL);
		agent_answer_setup(a, s, payload);
		return;
	}
	if (method == METHOD_GUEST_FREEZE || method == METHOD_GUEST_THAW) {
		agent_answer_freeze(a, s, method == METHOD_GUEST_FREEZE);
		return;
	}
	if (method == METHOD_GUEST_PING && agent_answers_ping(a, s, payload))
		return;
	if (a->rig->programs != ANSWER_TEST && (method == METHOD_EXEC_START || method == METHOD_CODE_RUN)) {
		agent_runs(a, s, method, payload);
		return;
	}
	stream_accept(s, &ops, a);
	a->call = s; /* the test answers */
	a->call_over = false;
}

static inline void agent_up(struct link *k, uint64_t generation)
{
	struct agent_double *a = link_arg(k);

	a->generation = (unsigned)generation;
}

static inline void agent_down(struct link *k, const struct err *why)
{
	struct agent_double *a = link_arg(k);

	T_UNUSED(why);
	a->owed = NULL;
	a->link = link_free(k);
}

static inline void rig_agent(struct null_script *s, const struct id *id, int fd)
{
	static const struct link_ops ops = {
		.up = agent_up, .request = agent_request, .down = agent_down};
	struct rig *r = s->arg;
	struct agent_double *a = &r->agents[r->n_agents++];

	assert_true(r->n_agents <= RIG_AGENTS);
	*a = (struct agent_double){.rig = r, .id = *id};
	if (r->mode == AGENT_HANGS_UP) {
		(void)close(fd);
		return;
	}
	if (link_new(r->loop, fd, LINK_SOCKET, 0, &ops, a, &a->link, NULL) < 0)
		a->link = NULL; /* an injected fault hit the double: to the engine it hung up */
	if (a->link && r->mode == AGENT_MUTE) { /* the descriptor stays open, nobody reads */
		int keep = dup(link_fd(a->link));

		a->link = link_free(a->link);
		a->got = (uint64_t)keep; /* closed by rig_end() */
	}
}

/* ---- engine and client ---- */

static inline void rig_turns(struct rig *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(loop_turn(r->loop, 0), 0);
}

/* Turn, a fake millisecond each, until *@cond. Real time passes only where a worker thread works. */
static inline bool rig_until(struct rig *r, const bool *cond)
{
	for (unsigned i = 0; i < RIG_TURNS && !*cond; i++) {
		assert_int_equal(loop_turn(r->loop, i < 20 ? 0 : 1), 0);
		loop_advance(r->loop, NS_PER_MS);
	}
	return *cond;
}

static inline void rig_connect(struct rig *r)
{
	static const struct link_ops ops = {0};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(engine_serve(r->engine, pair[0], RIG_UID, NULL), 0);
	assert_int_equal(link_new(r->loop, pair[1], LINK_INITIATOR | LINK_SOCKET, 1, &ops, r,
				  &r->client, NULL),
			 0);
	for (unsigned i = 0; i < 100 && !link_is_up(r->client); i++)
		rig_turns(r, 1);
	assert_true(link_is_up(r->client));
}

static inline int rig_start_engine(struct rig *r, struct err *e)
{
	const struct engine_ops ops = {rig_ready, rig_over, r};
	int ret;

	r->ready = r->over = false;
	r->over_why = (struct err)ERR_INIT;
	r->config.epoch = ++r->epoch;
	ret = engine_new(&r->config, &ops, &r->engine, e);
	return ret < 0 ? ret : engine_start(r->engine, e);
}

static inline void rig_up(struct rig *r)
{
	assert_int_equal(rig_start_engine(r, NULL), 0);
	assert_true(rig_until(r, &r->ready));
	rig_connect(r);
}

static inline void rig_begin(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	/* In memory where that is possible: no test here asks whether a file survives a power cut. */
	span_copy(span_of(access("/dev/shm", W_OK) == 0 ? "/dev/shm/t_engine.XXXXXX" : "/tmp/t_engine.XXXXXX"), r->dir,
		  sizeof(r->dir));
	assert_non_null(mkdtemp(r->dir));
	assert_int_equal(loop_new(true, &r->loop), 0);
	assert_int_equal(store_open(r->dir, &r->store, NULL), 0);
	r->host = (struct engine_host){
		.arg = r,
		.image_open = rig_image_open,
		.disk_make = rig_disk_make,
		.disk_remove = rig_disk_remove,
		.layers_open = rig_layers_open,
		.layers_add = rig_layers_add,
		.layers_seal = rig_layers_seal,
		.layers_drop = rig_layers_drop,
		.layers_link = rig_layers_link,
		.layers_rollback = rig_layers_rollback,
		.set_save = rig_set_save,
		.set_load = rig_set_load,
		.set_disk_check = rig_set_disk_check,
		.set_remove = rig_set_remove,
		.random = rig_random,
		.close_fd = rig_close_fd,
		.log = rig_log,
	};
	r->driver = driver_null;
	r->driver.caps |= DRIVER_NEEDS_IMAGE | DRIVER_OWN_KERNEL;
	r->walls[0] = (struct engine_wall){&r->driver, "vm"};
	r->uids[0] = RIG_UID;
	r->config = (struct engine_config){
		.loop = r->loop,
		.store = r->store,
		.host = &r->host,
		.walls = r->walls,
		.version = "test",
		.pid = 1,
		.memory_budget_mb = 1024,
		.uids = r->uids,
		.n_uids = 1,
	};
	r->script.agent = rig_agent;
	r->script.arg = r;
	null_script_begin(&r->script);
}

/* The daemon dies: nothing is undone, machines and agents stay. */
static inline void rig_crash(struct rig *r)
{
	r->client = link_free(r->client);
	r->engine = engine_free(r->engine);
	rig_turns(r, 3);
}

static inline void rig_remove_dir(const char *dir)
{
	DIR *d = opendir(dir);

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		if (e->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
	(void)closedir(d);
	assert_int_equal(rmdir(dir), 0);
}

static inline void rig_end(struct rig *r)
{
	r->client = link_free(r->client);
	r->engine = engine_free(r->engine);
	for (unsigned i = 0; i < r->n_agents; i++) {
		struct agent_double *a = &r->agents[i];

		a->link = link_free(a->link);
		if (r->mode == AGENT_MUTE)
			(void)close((int)a->got);
	}
	rig_turns(r, 3);
	null_script_end(&r->script);
	r->store = store_close(r->store);
	r->loop = loop_free(r->loop);
	rig_remove_dir(r->dir);
}

/* ---- calls of the client ---- */

struct ask {
	bool done, replied;
	struct err why;
	char bytes[RECORD_MAX];
	size_t n;
	struct str items;
	uint64_t got;
	bool hold_back; /* don't consume */
	struct stream *stream;
};

static inline void ask_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct ask *a = stream_arg(s);

	T_UNUSED(fds);
	T_UNUSED(n_fds);
	memcpy(a->bytes, payload.p, payload.n);
	a->n = payload.n;
	a->replied = true;
}

static inline void ask_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct ask *a = stream_arg(s);

	T_UNUSED(offset);
	a->got += bytes.n;
	if (a->items.max)
		str_add_mem(&a->items, bytes.p, bytes.n);
	if (!a->hold_back)
		stream_consumed(s, bytes.n);
}

static inline void ask_closed(struct stream *s, const struct err *why)
{
	struct ask *a = stream_arg(s);

	err_copy(&a->why, why);
	a->stream = NULL;
	a->done = true;
}

static inline void ask_start(struct rig *r, struct ask *a, unsigned method, const void *rec, bool more)
{
	static const struct stream_ops ops = {
		.reply = ask_reply, .data = ask_data, .closed = ask_closed};

	a->done = a->replied = false;
	a->why = (struct err)ERR_INIT;
	a->got = 0;
	assert_int_equal(link_call(r->client, method, method_find(method)->request, rec, more, NULL,
				   0, &ops, a, &a->stream, NULL),
			 0);
}

/* Ask and wait. Return: 0 or the failure's negative code. */
static inline int ask(struct rig *r, struct ask *a, unsigned method, const void *rec)
{
	ask_start(r, a, method, rec, false);
	assert_true(rig_until(r, &a->done));
	return -a->why.code;
}

static inline void ask_decode(const struct ask *a, unsigned method, void *rec)
{
	assert_int_equal(rec_decode(method_find(method)->reply, a->bytes, a->n, rec, NULL), 0);
}

static inline int rig_create(struct rig *r, struct ask *a, const struct rec_sandbox_create *rec,
			     struct rec_sandbox_info *info)
{
	int ret = ask(r, a, METHOD_SANDBOX_CREATE, rec);

	if (ret == 0)
		ask_decode(a, METHOD_SANDBOX_CREATE, info);
	return ret;
}

static inline int rig_ref(struct rig *r, struct ask *a, unsigned method, const char *name)
{
	struct rec_sandbox_ref ref = {.sandbox = span_of(name)};

	return ask(r, a, method, &ref);
}

static inline struct rec_daemon_info rig_info(struct rig *r)
{
	struct ask *a = calloc(1, sizeof(*a));
	struct rec_daemon_info info;

	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0);
	ask_decode(a, METHOD_DAEMON_INFO, &info);
	info.version = info.mode = (struct span){0};
	free(a);
	return info;
}

static inline void rig_count(void *arg, const struct store_sandbox *row)
{
	if (strcmp(row->state, "failed") != 0)
		++*(unsigned *)arg;
}

/* Nothing is left: no machine, disk, promise; no row but those of remembered failures. */
static inline void rig_is_clean(struct rig *r)
{
	struct rec_daemon_info info = rig_info(r);
	unsigned rows = 0;

	assert_int_equal(null_script_running(&r->script), 0);
	assert_int_equal(r->disks, 0);
	assert_int_equal(info.sandboxes, 0);
	assert_int_equal(info.memory_promised_mb, 0);
	assert_int_equal(store_sandbox_each(r->store, rig_count, &rows, NULL), 0);
	assert_int_equal(rows, 0);
}
