/* keeper/t_copier.c - the memory of a process that maps a file privately, copied while it lives */
#include "keeper/copier.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/jail_qemu.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { PAGE = 4096, PAGES = 1024, MB = PAGES * PAGE / MIB, PATIENCE_MS = 20000 };

/* What stands in for a machine: it writes to pages when told and says when it has. */
struct machine {
	pid_t pid;
	int tell, told; /* our ends */
};

struct world {
	struct loop *loop;
	struct copier *copier;
	int base;
	char *want; /* what the copy must be */
	struct machine m;
	bool prepared, copied, failed;
	struct err why;
	uint64_t bytes;
	int fd; /* a dup of the copy */
};

static char pattern(unsigned page, unsigned round)
{
	return (char)(1 + (page * 7 + round * 101) % 250);
}

/* ---- in the machine ---- */

struct parts {
	char *low, *high; /* halves of the file, at places of their own */
};

static char *place(const struct parts *p, unsigned page)
{
	return page < PAGES / 2 ? p->low + (size_t)page * PAGE : p->high + (size_t)(page - PAGES / 2) * PAGE;
}

static bool is_written(unsigned page, unsigned round)
{
	return round == 0 ? page % 5 == 1 || (page > 700 && page < 800) : page % 9 == 1;
}

static void write_pages(const struct parts *p, unsigned round)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (is_written(i, round))
			memset(place(p, i), pattern(i, round), PAGE);
}

static char *map(int fd, off_t at, size_t n)
{
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, at);

	if (p == MAP_FAILED)
		_exit(3);
	return p;
}

/* How a machine maps its memory: as a file; as QEMU is made to (keeper/qemu_memory.h); in ways that no machine does. */
enum how { WHOLE, PIECES, ABSURD, MISSING };

static bool is_data(unsigned page)
{
	return page % 4 == 0;
}

static char *map_pieces(int fd, unsigned first, unsigned n)
{
	int zero = open("/dev/zero", O_RDONLY);
	char *p = map(zero, (off_t)first * PAGE, (size_t)n * PAGE);

	for (unsigned i = 0; i < n; i++)
		if (is_data(first + i) && mmap(p + (size_t)i * PAGE, PAGE, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_FIXED, fd, (off_t)(first + i) * PAGE) == MAP_FAILED)
			_exit(3);
	return p;
}

static char *map_half(int fd, enum how how, unsigned first)
{
	if (how == PIECES)
		return map_pieces(fd, first, PAGES / 2);
	return map(fd, (off_t)first * PAGE, (PAGES / 2 - (how == MISSING)) * PAGE);
}

static _Noreturn void be_machine(int base, int in, int out, enum how how)
{
	struct parts p;
	unsigned round = 0;
	char c;

	/* A machine is read by whoever owns its user namespace, root or not. */
	if (unshare(CLONE_NEWUSER) < 0)
		_exit(4);
	p.high = map_half(base, how == MISSING ? WHOLE : how, PAGES / 2);
	p.low = map_half(base, how, 0);
	if (how == ABSURD)
		(void)map(base, (off_t)PAGES * PAGE * 64, PAGE);
	for (volatile const char *q = place(&p, 3); q < place(&p, 8); q += PAGE)
		(void)*q; /* reading a hole leaves zeros in the file */
	while (read(in, &c, 1) == 1) {
		write_pages(&p, round++);
		if (write(out, &c, 1) != 1)
			break;
	}
	_exit(0);
}

/* ---- around it ---- */

static void let_write(struct machine *m)
{
	char c = 'w';

	assert_int_equal(sys_write_full(m->tell, &c, 1), 0);
	assert_int_equal(sys_read(m->told, &c, 1), 1);
}

static void start_machine(struct world *w, enum how how)
{
	int in[2], out[2];

	assert_int_equal(sys_pipe(in) | sys_pipe(out), 0);
	w->m.pid = fork();
	assert_true(w->m.pid >= 0);
	if (w->m.pid == 0) {
		(void)close(in[1]);
		be_machine(w->base, in[0], out[1], how);
	}
	(void)sys_close(in[0]);
	(void)sys_close(out[1]);
	w->m.tell = in[1];
	w->m.told = out[0];
}

static bool may_have_user_namespaces(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(geteuid() != 0 && unshare(CLONE_NEWUSER) < 0);
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static void end_machine(struct world *w)
{
	int status;

	if (w->m.pid == 0)
		return;
	assert_int_equal(kill(w->m.pid, SIGKILL), 0);
	assert_int_equal(waitpid(w->m.pid, &status, 0), w->m.pid);
	w->m.pid = 0;
	w->m.tell = sys_close(w->m.tell);
	w->m.told = sys_close(w->m.told);
}

static void on_prepared(void *arg)
{
	((struct world *)arg)->prepared = true;
}

static void on_copied(void *arg, uint64_t bytes, uint64_t us)
{
	struct world *w = arg;
	int fd = -1;

	T_UNUSED(us);
	w->copied = true;
	w->bytes = bytes;
	if (copier_take(w->copier, &fd, NULL) == 0)
		w->fd = sys_dup(fd);
}

static void on_failed(void *arg, const struct err *why)
{
	struct world *w = arg;

	w->failed = true;
	w->why = *why;
	w->copier = copier_free(w->copier);
}

static void begin(struct world *w)
{
	if (!may_have_user_namespaces())
		skip();
	*w = (struct world){.fd = -1, .want = calloc(PAGES, PAGE)};
	assert_non_null(w->want);
	assert_int_equal(loop_new(false, &w->loop), 0);
	w->base = sys_memfd("base", MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(w->base, PAGES * PAGE), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		if (!is_data(i))
			continue;
		memset(w->want + (size_t)i * PAGE, pattern(i, 9), PAGE);
		assert_int_equal(sys_pwrite_full(w->base, w->want + (size_t)i * PAGE, PAGE, (uint64_t)i * PAGE), 0);
	}
	assert_int_equal(jail_qemu_memory_seal(w->base, NULL), 0);
}

static void end(struct world *w)
{
	w->copier = copier_free(w->copier);
	end_machine(w);
	w->loop = loop_free(w->loop);
	w->fd = sys_close(w->fd);
	w->base = sys_close(w->base);
	free(w->want);
}

static void turn_until(struct world *w, const bool *flag)
{
	uint64_t late = sys_now_ns() + PATIENCE_MS * NS_PER_MS;

	while (!*flag) {
		assert_true(sys_now_ns() < late);
		assert_int_equal(loop_turn(w->loop, 1000), 0);
		if (w->failed && flag != &w->failed)
			fail_msg("%s", w->why.text);
	}
}

static void prepare(struct world *w, const bool *until)
{
	const struct copier_events ev = {on_prepared, on_copied, on_failed, w};
	struct err e = ERR_INIT;

	if (copier_new(w->loop, w->m.pid, w->base, PAGES * PAGE, &ev, &w->copier, &e) < 0)
		fail_msg("%s", e.text);
	turn_until(w, until);
}

static void expect(struct world *w, unsigned round)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (is_written(i, round))
			memset(w->want + (size_t)i * PAGE, pattern(i, round), PAGE);
}

static uint64_t count_own(unsigned rounds)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < PAGES; i++) {
		bool own = false;

		for (unsigned r = 0; r < rounds; r++)
			own |= is_written(i, r);
		n += own;
	}
	return n;
}

static bool is_same(int fd, const char *want)
{
	char *got = malloc(PAGES * PAGE);
	bool same;

	assert_non_null(got);
	assert_int_equal(sys_pread(fd, got, PAGES * PAGE, 0), PAGES * PAGE);
	same = memcmp(got, want, PAGES * PAGE) == 0;
	free(got);
	return same;
}

/* ---- tests ---- */

static uint64_t blocks_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void copy_exactly(enum how how)
{
	struct world w;
	struct stat st;
	char *base;
	uint64_t data = 0, before;

	begin(&w);
	before = blocks_of(w.base);
	base = malloc(PAGES * PAGE);
	assert_non_null(base);
	memcpy(base, w.want, PAGES * PAGE);
	start_machine(&w, how);
	let_write(&w.m);
	prepare(&w, &w.prepared);
	let_write(&w.m); /* goes on meanwhile */
	assert_int_equal(copier_copy(w.copier, NULL), 0);
	turn_until(&w, &w.copied);
	expect(&w, 0);
	expect(&w, 1);
	assert_true(is_same(w.fd, w.want));
	assert_true(is_same(w.base, base));
	assert_int_equal(w.bytes, count_own(2) * PAGE);
	for (unsigned i = 0; i < PAGES; i++) {
		const char *p = w.want + (size_t)i * PAGE;

		data += p[0] != 0;
	}
	assert_int_equal(fstat(w.fd, &st), 0);
	assert_true(data < PAGES && (uint64_t)st.st_blocks * 512 == data * PAGE); /* holes are holes */
	assert_int_equal(jail_qemu_memory_check(w.fd, MB, NULL), 0);
	assert_true(fcntl(w.fd, F_GET_SEALS) & F_SEAL_SEAL);
	assert_int_equal(copier_copy(w.copier, NULL), -ERR_CONFLICT); /* once */
	if (how == PIECES)
		assert_int_equal(blocks_of(w.base), before); /* what it used is its own */
	else
		assert_true(blocks_of(w.base) > before);
	free(base);
	end(&w);
}

static void a_copy_is_exact(void **state)
{
	T_UNUSED(state);
	copy_exactly(WHOLE);
}

static void pieces_are_copied_exactly(void **state)
{
	T_UNUSED(state);
	copy_exactly(PIECES);
}

/* A copy of what started from a copy. */
static void copies_of_copies(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	for (unsigned round = 0; round < 3; round++) {
		start_machine(&w, WHOLE);
		let_write(&w.m);
		expect(&w, 0);
		prepare(&w, &w.prepared);
		if (round == 1) {
			let_write(&w.m);
			expect(&w, 1);
		}
		assert_int_equal(copier_copy(w.copier, NULL), 0);
		turn_until(&w, &w.copied);
		assert_true(is_same(w.fd, w.want));
		w.copier = copier_free(w.copier);
		end_machine(&w);
		(void)sys_close(w.base);
		w.base = w.fd;
		w.fd = -1;
		w.prepared = w.copied = false;
	}
	end(&w);
}

static void absurd_mappings_are_refused(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, ABSURD);
	let_write(&w.m);
	prepare(&w, &w.failed);
	assert_non_null(strstr(w.why.text, "address space"));
	assert_false(w.prepared);
	end(&w);
}

static void missing_pieces_are_refused(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, MISSING);
	prepare(&w, &w.failed);
	assert_non_null(strstr(w.why.text, "address space"));
	assert_false(w.prepared);
	end(&w);
}

static void foreign_memory_is_refused(void **state)
{
	struct world w;
	int other;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, WHOLE);
	let_write(&w.m);
	other = w.base;
	w.base = sys_memfd("other", MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(w.base, PAGES * PAGE), 0);
	prepare(&w, &w.failed); /* it maps none of it */
	(void)sys_close(other);
	end(&w);
}

static void a_machine_that_dies(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, WHOLE);
	let_write(&w.m);
	prepare(&w, &w.prepared);
	assert_int_equal(kill(w.m.pid, SIGKILL), 0);
	/* dead and not reaped, as in a slot */
	assert_int_equal(waitid(P_PID, (id_t)w.m.pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	assert_int_equal(copier_copy(w.copier, NULL), 0);
	turn_until(&w, &w.failed);
	assert_int_equal(w.why.code, ERR_GONE);
	assert_false(w.copied);
	end(&w);
}

static pid_t child_of_ours(pid_t but)
{
	char text[256], *save = NULL;
	ssize_t n = sys_read_file(AT_FDCWD, "/proc/thread-self/children", text, sizeof(text));

	assert_true(n > 0);
	for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save))
		if ((pid_t)strtol(t, NULL, 10) != but)
			return (pid_t)strtol(t, NULL, 10);
	return 0;
}

static void a_copier_that_dies(void **state)
{
	struct world w;
	pid_t pid;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, WHOLE);
	let_write(&w.m);
	prepare(&w, &w.prepared);
	assert_true(access("/proc/thread-self/children", R_OK) == 0);
	pid = child_of_ours(w.m.pid);
	assert_true(pid > 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	turn_until(&w, &w.failed);
	assert_non_null(strstr(w.why.text, "killed"));
	end(&w);
}

static void given_up(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, WHOLE);
	let_write(&w.m);
	prepare(&w, &w.prepared);
	w.copier = copier_free(w.copier); /* the test's end looks for what it left */
	w.prepared = false;
	prepare(&w, &w.prepared);
	assert_int_equal(copier_copy(w.copier, NULL), 0);
	end(&w);
}

static void every_fault(void **state)
{
	struct world w;

	T_UNUSED(state);
	begin(&w);
	start_machine(&w, WHOLE);
	let_write(&w.m);
	FOR_EACH_FAULT(nth, EIO)
	{
		const struct copier_events ev = {on_prepared, on_copied, on_failed, &w};
		struct err e = ERR_INIT;

		if (copier_new(w.loop, w.m.pid, w.base, PAGES * PAGE, &ev, &w.copier, &e) < 0)
			assert_true(e.text[0] != '\0');
		w.copier = copier_free(w.copier);
	}
	end(&w);
}

T_MAIN(T(a_copy_is_exact), T(pieces_are_copied_exactly), T(copies_of_copies), T(absurd_mappings_are_refused),
       T(missing_pieces_are_refused), T(foreign_memory_is_refused),
       T(a_machine_that_dies), T(a_copier_that_dies), T(given_up), T(every_fault))
