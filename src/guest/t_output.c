/* t_output.c - the ring of chunks: nothing a reader still needs is forgotten, nothing is torn */
#include "base/testing.h"
#include "guest/output.h"
#include "wire/gen/limits.h"

static char zeros[LIMIT_WINDOW];

/* Copy [from, to) out, wherever the ring is folded. */
static void copy(const struct output *o, uint64_t from, uint64_t to, unsigned char *ret)
{
	while (from < to) {
		size_t n;
		const void *p = output_at(o, from, &n);

		n = n < to - from ? n : (size_t)(to - from);
		memcpy(ret, p, n);
		ret += n;
		from += n;
	}
}

static void t_chunks(void **state)
{
	static const unsigned char want[] = {1, 3, 0, 0, 'a', 'b', 'c', 2, 1, 0, 0, 'd', 4, 2, 0, 0, 'x', 'y'};
	unsigned char got[sizeof(want)];
	struct output o;

	(void)state;
	assert_int_equal(output_init(&o), 0);
	output_put(&o, 0, OUTPUT_STDOUT, "abc", 3);
	output_put(&o, 0, OUTPUT_STDERR, "d", 1);
	output_put_exit(&o, 0, "xy", 2);
	assert_int_equal(output_tail(&o), sizeof(want));
	copy(&o, 0, sizeof(want), got);
	assert_memory_equal(got, want, sizeof(want));
	assert_int_equal(output_chunk_end(&o, 0), 7);
	assert_int_equal(output_chunk_end(&o, 6), 7);
	assert_int_equal(output_chunk_end(&o, 7), 12);
	output_deinit(&o);
}

static void t_large_puts_become_chunks(void **state)
{
	struct output o;

	(void)state;
	assert_int_equal(output_init(&o), 0);
	output_put(&o, 0, OUTPUT_STDOUT, zeros, 2 * OUTPUT_CHUNK_MAX + 10);
	assert_int_equal(output_chunk_end(&o, 0), 32768);
	assert_int_equal(output_chunk_end(&o, 32768), 65536);
	assert_int_equal(output_tail(&o), 65536 + OUTPUT_HEAD + 10);
	output_deinit(&o);
}

static void t_full_ring_waits_and_the_exit_fits(void **state)
{
	struct output o;
	size_t room;

	(void)state;
	assert_int_equal(output_init(&o), 0);
	while ((room = output_room(&o, 0)) > 0)
		output_put(&o, 0, OUTPUT_STDOUT, zeros, room < 5000 ? room : 5000);
	assert_int_equal(output_head(&o), 0); /* OUTPUT-2 */
	assert_true(output_tail(&o) <= LIMIT_WINDOW);
	assert_true(output_memory(&o) <= LIMIT_WINDOW);
	output_put_exit(&o, 0, zeros, OUTPUT_EXIT_MAX); /* OUTPUT-3 */
	assert_int_equal(output_head(&o), 0);
	output_deinit(&o);
}

static void t_only_whole_chunks_go(void **state)
{
	struct output o;
	uint64_t keep;

	(void)state;
	assert_int_equal(output_init(&o), 0);
	for (int i = 0; i < 400; i++) {
		uint64_t middle = output_tail(&o) > 500 ? output_tail(&o) - 500 : 0;

		keep = middle; /* inside a chunk */
		output_put(&o, keep, OUTPUT_STDOUT, zeros, 1500);
		assert_true(output_head(&o) <= keep);
		assert_int_equal(output_head(&o) % (1500 + OUTPUT_HEAD), 0); /* OUTPUT-1 */
	}
	assert_true(output_head(&o) > 0); /* it did forget */
	output_deinit(&o);
}

/* A writer that stays ahead of a reader by less than the ring: every byte arrives. */
static void t_pattern_survives(void **state)
{
	struct output o;
	uint64_t read = 0;
	unsigned char next = 0, expect = 0, buf[3000];

	(void)state;
	assert_int_equal(output_init(&o), 0);
	for (int round = 0; round < 2000; round++) {
		size_t n = 1 + (size_t)(round * 7919) % sizeof(buf), room = output_room(&o, read);
		unsigned char got[4096];
		uint64_t end;

		n = n < room ? n : room;
		for (size_t i = 0; i < n; i++)
			buf[i] = next++;
		output_put(&o, read, OUTPUT_STDOUT, buf, n);
		if (round % 3 && read < output_tail(&o)) {
			end = output_chunk_end(&o, read);
			copy(&o, read, end, got);
			for (size_t i = OUTPUT_HEAD; i < end - read; i++)
				assert_int_equal(got[i], expect++);
			read = end;
		}
	}
	output_deinit(&o);
}

static void t_room_grows_as_readers_read(void **state)
{
	struct output o;

	(void)state;
	assert_int_equal(output_init(&o), 0);
	while (output_room(&o, 0) >= 4096)
		output_put(&o, 0, OUTPUT_STDOUT, zeros, 4096);
	assert_true(output_room(&o, 0) < 4096);
	assert_true(output_room(&o, 4100) >= 4096);
	assert_true(output_room(&o, 4099) < 4096 + 4096); /* a chunk read almost whole still counts */
	assert_true(output_room(&o, output_tail(&o)) > LIMIT_WINDOW - 2048);
	output_deinit(&o);
}

T_MAIN(T(t_chunks), T(t_large_puts_become_chunks), T(t_full_ring_waits_and_the_exit_fits),
       T(t_only_whole_chunks_go), T(t_pattern_survives), T(t_room_grows_as_readers_read))
