/* keeper/t_qemu_memory.c - the object that is loaded into QEMU, in a program that maps its memory as QEMU does */
#include "keeper/qemu_memory.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/jail_qemu.h"
#include "sys/fd.h"

enum { PAGE = 4096, HIGH = 100, PIECES = QEMU_EXTENTS_MAX + 1000 };

struct world {
	char mapper[512];
	int memory, object, zero, said[2];
	char last_words[512];
};

/* Every @every-th page of @pages has data. */
static bool begin(struct world *w, unsigned pages, unsigned every)
{
	char data[PAGE];

	if (!getenv("HOTCELL_BUILD"))
		return false;
	*w = (struct world){0};
	(void)snprintf(w->mapper, sizeof(w->mapper), "%s/src/bin/qemu-mapper", getenv("HOTCELL_BUILD"));
	if (access(w->mapper, X_OK) < 0)
		return false;
	w->memory = sys_memfd("ram", MFD_ALLOW_SEALING);
	w->zero = sys_open(QEMU_ZERO, O_RDONLY);
	assert_int_equal(ftruncate(w->memory, (off_t)pages * PAGE), 0);
	memset(data, 7, sizeof(data));
	for (unsigned i = every / 2; i < pages; i += every)
		assert_int_equal(sys_pwrite_full(w->memory, data, PAGE, (uint64_t)i * PAGE), 0);
	assert_int_equal(jail_qemu_memory_seal(w->memory, NULL), 0);
	assert_int_equal(qemu_memory_object_new(&w->object, NULL), 0);
	assert_int_equal(sys_pipe(w->said), 0);
	return true;
}

static void end(struct world *w)
{
	int all[] = {w->memory, w->object, w->zero, w->said[0], w->said[1]};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		(void)sys_close(all[i]);
}

static _Noreturn void be_mapper(const struct world *w, const char *how, bool preload)
{
	const struct {
		int from, to;
	} fds[] = {{w->said[1], 2}, {w->memory, QEMU_FD_MEMORY}, {w->zero, QEMU_FD_ZERO}, {w->object, QEMU_FD_OBJECT}};
	char *const argv[] = {(char *)"mapper", (char *)how, NULL};
	char *const envp[] = {preload ? (char *)"LD_PRELOAD=/proc/self/fd/21" : NULL, NULL};
	int high[ARRAY_LEN(fds)];

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		high[i] = fcntl(fds[i].from, F_DUPFD_CLOEXEC, HIGH);
	(void)close(QEMU_FD_RAM);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		if (dup2(high[i], fds[i].to) < 0)
			_exit(99);
	(void)execve(w->mapper, argv, envp);
	_exit(99);
}

/* Its exit status; what it said is in last_words. */
static int run(struct world *w, const char *how, bool preload)
{
	int status = 0;
	ssize_t n;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		be_mapper(w, how, preload);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(sys_write_full(w->said[1], "\n", 1), 0);
	n = sys_read(w->said[0], w->last_words, sizeof(w->last_words) - 1);
	assert_true(n > 0);
	w->last_words[n] = '\0';
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static uint64_t blocks_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void the_file_does_not_grow(void **state)
{
	static const unsigned shapes[][2] = {{1024, 4}, {1024, 1}, {1024, 2048}, {1024, 1023}, {4096, 100}};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		struct world w;
		uint64_t before;

		if (!begin(&w, shapes[i][0], shapes[i][1]))
			skip();
		before = blocks_of(w.memory);
		assert_int_equal(run(&w, "whole", true), 0);
		assert_string_equal(w.last_words, "\n");
		assert_int_equal(blocks_of(w.memory), before);
		end(&w);
	}
}

/* The narrowest holes are mapped with what is around them, so that mappings stay few. */
static void too_many_pieces(void **state)
{
	struct world w;

	T_UNUSED(state);
	if (!begin(&w, 2 * PIECES, 2))
		skip();
	assert_int_equal(run(&w, "whole", true), 0);
	assert_true(blocks_of(w.memory) <= 2 * PIECES * PAGE / 512);
	end(&w);
}

static void no_memory_without_the_object(void **state)
{
	struct world w;

	T_UNUSED(state);
	if (!begin(&w, 1024, 4))
		skip();
	assert_int_equal(run(&w, "whole", false), 2);
	end(&w);
}

static void other_ways_end_it(void **state)
{
	static const char *const ways[] = {"shared", "part", "twice"};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		struct world w;

		if (!begin(&w, 1024, 4))
			skip();
		assert_int_equal(run(&w, ways[i], true), 1);
		assert_non_null(strstr(w.last_words, "the machine's memory can't be mapped"));
		assert_non_null(strstr(w.last_words, "not known here"));
		end(&w);
	}
}

T_MAIN(T(the_file_does_not_grow), T(too_many_pieces), T(no_memory_without_the_object), T(other_ways_end_it))
