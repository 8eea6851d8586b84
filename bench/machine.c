/* machine.c - see machine.h */
#include "machine.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "base/mem.h"
#include "hotcell.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum {
	LIFETIME_MS = 20 * 60 * 1000, /* if this program is killed */
	PATIENCE_MS = 60 * 1000,
	BLOCK = 1 << 20,
};

static int fail(struct hotcell_error *e, const char *text)
{
	e->code = HOTCELL_INTERNAL;
	snprintf(e->message, sizeof(e->message), "%s", text);
	return -e->code;
}

int machine_create(struct hotcell *h, const char *kind, uint32_t memory_mib, struct hotcell_sandbox **ret,
		   struct hotcell_error *e)
{
	struct hotcell_config config = HOTCELL_CONFIG_INIT;

	config.cold = strcmp(kind, "vm-cold") == 0;
	config.isolation = config.cold ? "vm" : kind;
	config.memory_mib = memory_mib;
	config.lifetime_ms = LIFETIME_MS;
	return hotcell_create(h, &config, ret, e);
}

int machine_speak(struct hotcell_sandbox *s, char *const argv[], uint64_t *ret_first_ns, struct hotcell_error *e)
{
	struct hotcell_session *x = NULL;
	enum hotcell_stream which;
	char buf[4096];
	size_t n = 0;
	int code = -1;
	int r = hotcell_start(s, NULL, (const char *const *)argv, NULL, &x, e);

	if (r == 0)
		r = hotcell_session_read(x, buf, sizeof(buf), PATIENCE_MS, &which, &n, e);
	*ret_first_ns = sys_now_ns();
	if (r == 0)
		r = hotcell_session_wait(x, PATIENCE_MS, &code, e);
	hotcell_session_close(x);
	if (r == 0 && (n == 0 || code != 0))
		r = fail(e, "the program failed or said nothing");
	return r;
}

/* ---- a file ---- */

/* @bytes that don't repeat within a block, so that nothing on the way can leave them out. */
static int fill_file(int fd, uint64_t bytes)
{
	AUTO_FREE unsigned char *block = mem_new(BLOCK);
	uint64_t x = bytes;
	int r = 0;

	for (size_t i = 0; i < BLOCK; i += sizeof(x)) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		memcpy(block + i, &x, sizeof(x));
	}
	for (uint64_t left = bytes; left > 0 && r == 0; left -= MIN(left, (uint64_t)BLOCK))
		r = sys_write_full(fd, block, MIN(left, (uint64_t)BLOCK));
	return r < 0 || lseek(fd, 0, SEEK_SET) < 0 ? -1 : 0;
}

int machine_put(struct hotcell_sandbox *s, const char *path, uint64_t bytes, char sha256[MACHINE_HASH_TEXT],
		uint64_t *ret_ns, struct hotcell_error *e)
{
	AUTO_CLOSE int fd = sys_memfd("upload", 0);
	uint64_t start_ns;
	int r;

	if (fd < 0 || fill_file(fd, bytes) < 0)
		return fail(e, "no memory for the file");
	start_ns = sys_now_ns();
	r = hotcell_put_file(s, path, fd, 0, sha256, e);
	*ret_ns = sys_now_ns() - start_ns;
	return r;
}

int machine_get(struct hotcell_sandbox *s, const char *path, const char sha256[MACHINE_HASH_TEXT], uint64_t *ret_ns,
		struct hotcell_error *e)
{
	AUTO_CLOSE int fd = sys_open("/dev/null", O_WRONLY);
	char got[MACHINE_HASH_TEXT];
	uint64_t start_ns = sys_now_ns();
	int r;

	if (fd < 0)
		return fail(e, "can't open /dev/null");
	r = hotcell_get_file(s, path, fd, got, e);
	*ret_ns = sys_now_ns() - start_ns;
	if (r == 0 && strcmp(got, sha256) != 0)
		r = fail(e, "the file came back changed");
	return r;
}

/* ---- many at once ---- */

struct crowd {
	const char *run_dir, *kind;
	char *const *argv;
	pthread_barrier_t begin, end;
	uint64_t start_ns; /* written by one before the second wait at the barrier */
};

struct worker {
	struct crowd *crowd;
	struct machine_member *ret;
	pthread_t thread;
	struct hotcell_error error;
	int r;
};

/* Removing comes last, when nobody is timed any more. */
static void work_one(struct worker *w, struct hotcell *h)
{
	struct crowd *c = w->crowd;
	struct hotcell_sandbox *s = NULL;
	struct hotcell_error ignored;
	uint64_t ns;

	w->r = machine_create(h, c->kind, 0, &s, &w->error);
	ns = sys_now_ns();
	w->ret->ready_ns = ns - c->start_ns;
	if (w->r == 0 && c->argv[0])
		w->r = machine_speak(s, c->argv, &ns, &w->error);
	w->ret->first_ns = ns - c->start_ns;
	(void)pthread_barrier_wait(&c->end);
	if (s)
		(void)hotcell_sandbox_destroy(s, &ignored);
}

/* Everybody is connected, then everybody starts. */
static void *work(void *arg)
{
	struct hotcell_connect_options o = HOTCELL_CONNECT_OPTIONS_INIT;
	struct worker *w = arg;
	struct hotcell *h = NULL;

	o.run_dir = w->crowd->run_dir;
	w->r = hotcell_connect(&o, &h, &w->error);
	if (pthread_barrier_wait(&w->crowd->begin) == PTHREAD_BARRIER_SERIAL_THREAD)
		w->crowd->start_ns = sys_now_ns();
	(void)pthread_barrier_wait(&w->crowd->begin);
	if (w->r == 0)
		work_one(w, h);
	else
		(void)pthread_barrier_wait(&w->crowd->end);
	if (h)
		hotcell_disconnect(h);
	return NULL;
}

int machine_crowd(const char *run_dir, const char *kind, char *const argv[], struct machine_member *ret, size_t n,
		  struct hotcell_error *e)
{
	struct crowd c = {.run_dir = run_dir, .kind = kind, .argv = argv};
	AUTO_FREE struct worker *w = mem_new(n * sizeof(*w));
	int r = 0;

	if (n == 0 || n > MACHINE_CROWD_MAX || pthread_barrier_init(&c.begin, NULL, (unsigned)n) != 0 ||
	    pthread_barrier_init(&c.end, NULL, (unsigned)n) != 0)
		return fail(e, "a crowd is 1 to 128");
	for (size_t i = 0; i < n; i++) {
		w[i] = (struct worker){.crowd = &c, .ret = &ret[i]};
		if (pthread_create(&w[i].thread, NULL, work, &w[i]) != 0)
			_exit(1); /* those already started wait for the missing one for ever */
	}
	for (size_t i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		if (w[i].r < 0 && r == 0) {
			r = w[i].r;
			*e = w[i].error;
		}
	}
	pthread_barrier_destroy(&c.begin);
	pthread_barrier_destroy(&c.end);
	return r;
}
