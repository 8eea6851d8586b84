/* sys/landlock.h - confine the caller and its children to some files, for good. -errno. */
#pragma once
#include <stdbool.h>

int landlock_abi(void); /* 0: not here */

enum { LANDLOCK_LINKS = 2 }; /* the ABI from which on files can be linked and moved between folders */

enum landlock_may {
	LANDLOCK_MAY_READ = 1,	/* files and directories */
	LANDLOCK_MAY_EXEC = 2,
	LANDLOCK_MAY_WRITE = 4, /* everything that changes something */
};

struct landlock_rule {
	const char *path; /* a file or a whole tree; missing: passed over */
	unsigned may;	  /* enum landlock_may */
	int fd;		  /* what is meant, lent, when path is NULL */
};

/*
 * landlock_confine() - nothing but what the rules allow, from here on
 * @no_tcp:	no TCP connect or bind at all (ABI 4)
 *
 * Afterwards mount(2) and its kin fail too, signals and abstract sockets don't leave
 * the confined tree (ABI 6). Needs no_new_privs. 0 where Landlock is absent.
 */
int landlock_confine(const struct landlock_rule *rules, unsigned n, bool no_tcp);
