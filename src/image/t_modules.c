/* image/t_modules.c */
#include "image/modules.h"
#include "base/err.h"
#include "base/testing.h"

static const char dep[] =
	"kernel/fs/overlayfs/overlay.ko:\n"
	"kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n"
	"kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko "
	"kernel/drivers/virtio/virtio_ring.ko\n"
	"kernel/drivers/virtio/virtio_ring.ko:\n"
	"kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko\n"
	"kernel/a/not_virtio_blk.ko:\n";
static const char builtin[] = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc16.ko\n";

static struct module_list list; /* large */

static int order(const char *text, const char *name, struct err *e)
{
	return modules_order(text, builtin, &(struct module_wish){ name, false }, 1, &list, e);
}

static void what_is_needed_comes_first_and_once(void **state)
{
	static const struct module_wish wishes[] = { { "virtio_blk", false },
						     { "overlay", false },
						     { "virtio_rng", true },
						     { "ext4", false },
						     { "virtio_vanished", true } };
	static const char *const expected[] = {
		"kernel/drivers/virtio/virtio_ring.ko",
		"kernel/drivers/virtio/virtio.ko",
		"kernel/drivers/block/virtio_blk.ko",
		"kernel/fs/overlayfs/overlay.ko",
		"kernel/drivers/char/hw_random/virtio-rng.ko.xz",
	};

	T_UNUSED(state);
	assert_int_equal(modules_order(dep, builtin, wishes, ARRAY_LEN(wishes), &list, NULL), 0);
	assert_int_equal(list.n, ARRAY_LEN(expected));
	for (size_t i = 0; i < ARRAY_LEN(expected); i++)
		assert_string_equal(list.path[i], expected[i]);
}

/* The same modules in another kernel's file: the order is that file's. */
static void the_order_follows_the_file(void **state)
{
	T_UNUSED(state);
	assert_int_equal(order("a/virtio_ring.ko: a/virtio.ko\na/virtio.ko: a/x.ko\na/x.ko:\n",
			       "virtio_ring", NULL),
			 0);
	assert_int_equal(list.n, 3);
	assert_string_equal(list.path[0], "a/x.ko");
	assert_string_equal(list.path[1], "a/virtio.ko");
}

static void what_is_lacking_is_named(void **state)
{
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(order(dep, "virtio_vanished", &e), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "virtio_vanished"));
	assert_int_equal(order("a/x.ko: a/y.ko\n", "x", &e), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "a/y.ko"));
	assert_int_equal(order("", "x", NULL), -ERR_NOT_FOUND);
	assert_int_equal(order("virtio", "virtio", NULL), -ERR_NOT_FOUND);
	assert_int_equal(order(dep, "blk", NULL), -ERR_NOT_FOUND); /* not a part of a name */
	assert_int_equal(order(dep, "not_virtio", NULL), -ERR_NOT_FOUND);
}

static void cycles_and_escapes_are_refused(void **state)
{
	T_UNUSED(state);
	assert_int_equal(order("a/x.ko: a/y.ko\na/y.ko: a/x.ko\n", "x", NULL), -ERR_LIMIT);
	assert_int_equal(order("a/x.ko: a/x.ko\n", "x", NULL), -ERR_LIMIT);
	assert_int_equal(order("/etc/x.ko:\n", "x", NULL), -ERR_INVALID);
	assert_int_equal(order("a/../../x.ko:\n", "x", NULL), -ERR_INVALID);
}

static void too_many_modules_are_refused(void **state)
{
	static char text[MODULES_MAX * 200];
	size_t n = (size_t)sprintf(text, "a/x.ko:");

	T_UNUSED(state);
	for (int i = 0; i < MODULES_MAX; i++)
		n += (size_t)sprintf(text + n, " a/m%d.ko", i);
	n += (size_t)sprintf(text + n, "\n");
	for (int i = 0; i < MODULES_MAX; i++)
		n += (size_t)sprintf(text + n, "a/m%d.ko:\n", i);
	assert_int_equal(order(text, "x", NULL), -ERR_LIMIT);
}

static void file_names_lose_folder_and_packing(void **state)
{
	char name[MODULES_PATH_MAX];

	T_UNUSED(state);
	modules_file_name("kernel/a/virtio-rng.ko.xz", name);
	assert_string_equal(name, "virtio-rng.ko");
	modules_file_name("overlay.ko", name);
	assert_string_equal(name, "overlay.ko");
}

T_MAIN(T(what_is_needed_comes_first_and_once), T(the_order_follows_the_file),
       T(what_is_lacking_is_named), T(cycles_and_escapes_are_refused),
       T(too_many_modules_are_refused), T(file_names_lose_folder_and_packing))
