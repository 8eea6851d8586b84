/* t_passwd.c - users out of files that the workload may have written */
#include "base/testing.h"
#include "guest/passwd.h"

static const char file[] = "root:x:0:0:root:/root:/bin/bash\n"
			   "# a comment\n"
			   "\n"
			   "broken:x:1:2:too:few\n"
			   "many:x:3:3:a:/b:/c:more\n"
			   "huge:x:4294967295:1::/:/bin/sh\n"
			   "minus:x:-5:1::/:/bin/sh\n"
			   "word:x:12a:1::/:/bin/sh\n"
			   "user:x:1000:1000:A User,,,:/home/user:/bin/bash\n"
			   "user:x:0:0:second:/root:/bin/sh\n"
			   "nohome:x:7:7:::\n"
			   "last:x:8:9::/l:/s";

static struct user find(const char *name)
{
	struct user u = {.uid = 12345};

	assert_int_equal(passwd_by_name(span_of(file), span_of(name), &u), 0);
	return u;
}

static void t_by_name(void **state)
{
	struct user u = find("user");

	(void)state;
	assert_int_equal(u.uid, 1000); /* the first line counts */
	assert_int_equal(u.gid, 1000);
	assert_string_equal(u.home, "/home/user");
	assert_string_equal(u.shell, "/bin/bash");
	u = find("nohome");
	assert_string_equal(u.home, "/");
	u = find("last"); /* no newline at the end of the file */
	assert_int_equal(u.gid, 9);
}

static void t_bad_lines_do_not_exist(void **state)
{
	static const char *const names[] = {"broken", "many",	"huge", "minus", "word",
					    "#",      "", "use", "user:x", "nobody"};
	struct user u = {.uid = 12345};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_int_equal(passwd_by_name(span_of(file), span_of(names[i]), &u), -ENOENT);
	assert_int_equal(u.uid, 12345);
}

static void t_by_uid(void **state)
{
	struct user u;

	(void)state;
	assert_int_equal(passwd_by_uid(span_of(file), 8, &u), 0);
	assert_string_equal(u.name, "last");
	assert_int_equal(passwd_by_uid(span_of(file), 99, &u), -ENOENT);
	assert_int_equal(passwd_by_uid(span_of(file), (uid_t)-1, &u), -ENOENT);
}

static void t_too_long(void **state)
{
	char line[4096], name[128];
	struct user u;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[PASSWD_NAME_MAX + 1] = '\0';
	(void)snprintf(line, sizeof(line), "%s:x:1:1::/:/bin/sh\n", name);
	assert_int_equal(passwd_by_name(span_of(line), span_of(name), &u), -ENOENT);
	memset(line, 'h', sizeof(line));
	memcpy(line, "a:x:1:1::/", 10);
	memcpy(line + 2000, ":/s\n", 5);
	assert_int_equal(passwd_by_name(span_of(line), span_of("a"), &u), -ENOENT);
}

static void t_nul_bytes(void **state)
{
	static const char nul[] = "a\0b:x:1:1::/:/s\nc:x:2:2::/x\0y:/s\nd:x:3:3::/:/s\n";
	struct span s = {nul, sizeof(nul) - 1};
	struct user u;

	(void)state;
	assert_int_equal(passwd_by_name(s, span_of("a"), &u), -ENOENT);
	assert_int_equal(passwd_by_name(s, span_of("c"), &u), -ENOENT);
	assert_int_equal(passwd_by_name(s, span_of("d"), &u), 0);
}

static void t_groups(void **state)
{
	static const char group[] = "root:x:0:user\n"
				    "own:x:1000:user\n"	/* the primary one: not twice */
				    "crew:x:50:a,user,b\n"
				    "again:x:50:user\n"
				    "other:x:51:users,xuser,user2\n"
				    "broken:x:52\n"
				    "tail:x:53:b,user";
	struct user u = find("user");

	(void)state;
	passwd_groups(span_of(group), &u);
	assert_int_equal(u.n_groups, 3);
	assert_int_equal(u.groups[0], 0);
	assert_int_equal(u.groups[1], 50);
	assert_int_equal(u.groups[2], 53);
}

static void t_groups_are_bounded(void **state)
{
	static char group[200 * 24];
	struct user u = find("user");
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 200; i++)
		n += (size_t)snprintf(group + n, sizeof(group) - n, "g%d:x:%d:user\n", i, 2000 + i);
	passwd_groups(span_of(group), &u);
	assert_int_equal(u.n_groups, PASSWD_GROUPS_MAX);
}

static void t_names(void **state)
{
	(void)state;
	assert_true(span_is(passwd_name_of(span_of(file), 1000), "user"));
	assert_true(span_is(passwd_name_of(span_of("wheel:x:10:a,b\n"), 10), "wheel"));
	assert_int_equal(passwd_name_of(span_of(file), 4242).n, 0);
	assert_int_equal(passwd_name_of((struct span){0}, 0).n, 0);
}

T_MAIN(T(t_by_name), T(t_bad_lines_do_not_exist), T(t_by_uid), T(t_too_long), T(t_nul_bytes),
       T(t_groups), T(t_groups_are_bounded), T(t_names))
