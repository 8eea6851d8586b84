/* client/t_place.c */
#include "client/place.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/testing.h"

static const char *const names[] = {"HOTCELL_STATE", "HOTCELL_RUN", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME"};

/* @value: in the order of names; NULL: not set. */
static void with(const char *const value[5])
{
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(value[i] ? setenv(names[i], value[i], 1) : unsetenv(names[i]), 0);
}

static void run_is(const char *const value[5], const char *want)
{
	struct err e = ERR_INIT;
	struct place p;

	with(value);
	assert_int_equal(place_find(NULL, &p, &e), 0);
	assert_string_equal(p.run, want);
	assert_int_equal(strncmp(p.socket, want, strlen(want)), 0);
}

/* Sockets of one state's daemon are never those of another's: a state of one's own has a run directory of its own. */
static void run_directory_follows_state(void **state)
{
	const bool root = geteuid() == 0;

	T_UNUSED(state);
	run_is((const char *const[5]){"/x", NULL, NULL, "/rt", "/h"}, "/x/run");
	run_is((const char *const[5]){"/x", "/y", NULL, "/rt", "/h"}, "/y");
	run_is((const char *const[5]){NULL, "/y", NULL, "/rt", "/h"}, "/y");
	run_is((const char *const[5]){"", NULL, NULL, "/rt", "/h"}, root ? "/run/hotcell" : "/rt/hotcell");
	run_is((const char *const[5]){NULL, NULL, NULL, NULL, "/h"},
	       root ? "/run/hotcell" : "/h/.local/state/hotcell/run");
}

static void relative_and_long_ones_are_refused(void **state)
{
	char deep[200] = "/";
	struct err e = ERR_INIT;
	struct place p;

	T_UNUSED(state);
	with((const char *const[5]){"x", NULL, NULL, NULL, "/h"});
	assert_int_equal(place_find(NULL, &p, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "HOTCELL_STATE=x"));
	memset(deep + 1, 'd', sizeof(deep) - 2);
	with((const char *const[5]){deep, NULL, NULL, NULL, "/h"});
	assert_int_equal(place_find(NULL, &p, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "set HOTCELL_RUN to a shorter one"));
}

T_MAIN(T(run_directory_follows_state), T(relative_and_long_ones_are_refused))
