/* engine/t_recover.c - records against what a keeper lists; the keeper is a double behind a real socket */
#include "engine/engine.h"
#include "engine/t_rig.h"
#include "loop/link.h"

enum { LISTED_MAX = 4 };

/* Answers hello, watch, list, release and renew; owns nothing. */
struct keeper_double {
	struct rig *rig;
	int listen_fd;
	struct loop_io io;
	struct link *link;
	struct rec_machine_info listed[LISTED_MAX];
	unsigned n_listed, releases;
	struct id released;
};

static void answer_list(struct keeper_double *k, struct stream *s)
{
	(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, NULL);
	for (unsigned i = 0; i < k->n_listed; i++)
		assert_true(stream_send_item(s, &rec_machine_info_type, &k->listed[i]));
	stream_end(s);
}

static void keeper_request(struct link *link, struct stream *s, unsigned method, struct span payload,
			   const int *fds, unsigned n_fds)
{
	static const struct stream_ops deaf = {0};
	struct keeper_double *k = link_arg(link);
	struct rec_keeper_info info = {.version = span_of(HOTCELL_VERSION), .pid = 77, .root = true,
				       .opens_trees = true};
	struct rec_machine_ref ref;

	T_UNUSED(fds);
	T_UNUSED(n_fds);
	info.enforced = (struct strv){"memory\0cpu\0pids\0disk", 21};
	stream_accept(s, &deaf, NULL);
	if (method == METHOD_KEEPER_HELLO) {
		(void)stream_reply(s, &rec_keeper_info_type, &info, false, NULL, 0, NULL);
	} else if (method == METHOD_MACHINE_WATCH) {
		(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, NULL);
	} else if (method == METHOD_MACHINE_LIST) {
		answer_list(k, s);
	} else {
		if (method == METHOD_MACHINE_RELEASE) {
			assert_int_equal(rec_decode(&rec_machine_ref_type, payload.p, payload.n, &ref, NULL), 0);
			k->released = ref.id;
			k->releases++;
		}
		(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0, NULL);
	}
}

static void keeper_down(struct link *link, const struct err *why)
{
	struct keeper_double *k = link_arg(link);

	T_UNUSED(why);
	k->link = link_free(link);
}

static void keeper_connection(struct loop_io *io, unsigned events)
{
	static const struct link_ops ops = {.request = keeper_request, .down = keeper_down};
	struct keeper_double *k = CONTAINER_OF(io, struct keeper_double, io);
	int fd = accept(k->listen_fd, NULL, NULL);

	T_UNUSED(events);
	assert_true(fd >= 0);
	k->link = link_free(k->link);
	assert_int_equal(link_new(k->rig->loop, fd, LINK_FDS, 0, &ops, k, &k->link, NULL), 0);
}

static void keeper_begin(struct keeper_double *k, struct rig *r, char path[96])
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	*k = (struct keeper_double){.rig = r};
	(void)snprintf(path, 96, "%s.keeper", r->dir);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	k->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(k->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(k->listen_fd, 4), 0);
	assert_int_equal(loop_io_add(r->loop, &k->io, k->listen_fd, LOOP_READ, keeper_connection), 0);
	r->config.keeper_socket = path;
}

static void keeper_end(struct keeper_double *k, const char *path)
{
	k->link = link_free(k->link);
	loop_io_del(k->rig->loop, &k->io);
	(void)close(k->listen_fd);
	(void)unlink(path);
}

static int state_of(struct rig *r, const char *name, struct ask *a, struct rec_sandbox_info *info)
{
	int got = rig_ref(r, a, METHOD_SANDBOX_INFO, name);

	if (got == 0)
		ask_decode(a, METHOD_SANDBOX_INFO, info);
	return got;
}

static void make_x(struct rig *r, struct ask *a, struct rec_sandbox_info *info)
{
	struct rec_sandbox_create rec = {.name = span_of("x")};

	assert_int_equal(rig_create(r, a, &rec, info), 0);
}

static void a_machine_without_a_record_is_released(void **state)
{
	struct rig r;
	struct keeper_double k;
	char path[96];

	T_UNUSED(state);
	rig_begin(&r);
	keeper_begin(&k, &r, path);
	k.listed[k.n_listed++] = (struct rec_machine_info){.id = {{5}}, .kind = 1};
	rig_up(&r); /* ready only after it is gone */
	assert_int_equal(k.releases, 1);
	assert_int_equal(k.released.b[0], 5);
	assert_int_equal(rig_info(&r).keeper_pid, 77);
	r.client = link_free(r.client);
	r.engine = engine_free(r.engine);
	keeper_end(&k, path);
	rig_end(&r);
}

static void a_record_whose_machine_ended_keeps_its_reason(void **state)
{
	static const char oom[] = "killed for memory";
	struct ask *a = calloc(1, sizeof(*a));
	struct rec_sandbox_info info;
	struct keeper_double k;
	struct rig r;
	char path[96];

	T_UNUSED(state);
	for (int listed = 0; listed < 2; listed++) {
		rig_begin(&r);
		keeper_begin(&k, &r, path);
		rig_up(&r);
		make_x(&r, a, &info);
		if (listed)
			k.listed[k.n_listed++] = (struct rec_machine_info){
				.id = info.id, .kind = 2, .gone = true, .reason = span_of(oom)};
		rig_crash(&r);
		rig_up(&r);
		assert_int_equal(state_of(&r, "x", a, &info), 0);
		assert_true(span_is(info.state, "failed"));
		assert_non_null(memmem(info.reason.p, info.reason.n, listed ? oom : "started anew",
				       listed ? strlen(oom) : 12));
		assert_int_equal(k.releases, 1);
		assert_int_equal(rig_info(&r).sandboxes, 0);
		r.client = link_free(r.client);
		r.engine = engine_free(r.engine);
		keeper_end(&k, path);
		rig_end(&r);
	}
	free(a);
}

static void a_listed_machine_is_adopted(void **state)
{
	struct ask *a = calloc(1, sizeof(*a));
	struct rec_sandbox_info info;
	struct keeper_double k;
	struct rig r;
	char path[96];

	T_UNUSED(state);
	rig_begin(&r);
	keeper_begin(&k, &r, path);
	rig_up(&r);
	make_x(&r, a, &info);
	k.listed[k.n_listed++] = (struct rec_machine_info){.id = info.id, .kind = 2};
	rig_crash(&r);
	rig_up(&r);
	assert_int_equal(state_of(&r, "x", a, &info), 0);
	assert_true(span_is(info.state, "running"));
	assert_int_equal(k.releases, 0);
	free(a);
	r.client = link_free(r.client);
	r.engine = engine_free(r.engine);
	keeper_end(&k, path);
	rig_end(&r);
}

/* Every machine is its child: when it goes they are gone, and the next daemon says why. */
static void a_lost_keeper_ends_the_daemon(void **state)
{
	struct ask *a = calloc(1, sizeof(*a));
	struct rec_sandbox_info info;
	struct keeper_double k;
	struct rig r;
	char path[96];

	T_UNUSED(state);
	rig_begin(&r);
	keeper_begin(&k, &r, path);
	rig_up(&r);
	make_x(&r, a, &info);
	ask_start(&r, a, METHOD_SANDBOX_HOLD, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, true);
	assert_true(rig_until(&r, &a->replied));
	k.link = link_free(k.link);
	assert_true(rig_until(&r, &r.over));
	assert_int_equal(r.over_why.code, ERR_GONE);
	r.engine = engine_free(r.engine);
	assert_true(rig_until(&r, &a->done)); /* who waited is told */
	assert_non_null(strstr(a->why.text, "keeper"));
	r.client = link_free(r.client);
	rig_up(&r);
	assert_int_equal(state_of(&r, "x", a, &info), 0);
	assert_true(span_is(info.state, "failed"));
	assert_non_null(memmem(info.reason.p, info.reason.n, "keeper", 6));
	free(a);
	r.client = link_free(r.client);
	r.engine = engine_free(r.engine);
	keeper_end(&k, path);
	rig_end(&r);
}

static void no_keeper_is_an_error_at_once(void **state)
{
	struct err e = ERR_INIT;
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	r.config.keeper_socket = "/nonexistent/keeper.sock";
	assert_true(rig_start_engine(&r, &e) < 0);
	assert_true(e.code != 0);
	rig_end(&r);
}

T_MAIN(T(a_machine_without_a_record_is_released), T(a_record_whose_machine_ended_keeps_its_reason),
       T(a_listed_machine_is_adopted), T(a_lost_keeper_ends_the_daemon), T(no_keeper_is_an_error_at_once))
