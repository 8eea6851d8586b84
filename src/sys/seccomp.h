/*
 * sys/seccomp.h - system call filters, compiled by libseccomp, installed by us
 *
 * A filter is data: a const table of system calls by name and what each answers. It
 * is compiled once (by whoever may link libseccomp) into BPF in a memfd; whoever installs
 * it needs only the kernel. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sock_filter;

enum seccomp_do {
	SECCOMP_DO_ALLOW,
	SECCOMP_DO_ERRNO, /* answer with .answer; 0: as if it had been done */
	SECCOMP_DO_KILL,  /* the whole process */
};

/* (argument & mask) == value; mask 0: always. */
struct seccomp_arg {
	unsigned arg; /* 0-5 */
	uint64_t mask, value;
	bool differs; /* all of the argument is not @value */
};

enum { SECCOMP_ALSO_MAX = 2 };

/* Applies when (argument & mask) == value, or always when mask is 0. */
struct seccomp_rule {
	/* kernel's name; NULL ends a table; names unknown to libseccomp are passed over unless .number */
	const char *call;
	enum seccomp_do act;
	int answer;	  /* positive errno, or 0 */
	unsigned arg;	  /* 0-5 */
	uint64_t mask, value;
	struct seccomp_arg also[SECCOMP_ALSO_MAX]; /* of other arguments; only beside a mask of its own */
	int number;	  /* x86-64 number for calls younger than libseccomp; 0: by name */
};

struct seccomp_policy {
	const char *name;
	enum seccomp_do otherwise;
	int otherwise_answer;		    /* positive errno */
	const struct seccomp_rule *const *tables; /* NULL-terminated list of tables */
};

/* Filters larger than this are refused; the kernel's own maximum is 4096 instructions. */
enum { SECCOMP_INSTRUCTIONS_MAX = 4096 };

/* Compile into a sealed memfd: an array of struct sock_filter. -EINVAL: a mistake in the policy. */
int seccomp_compile(const struct seccomp_policy *p, int *ret_fd);

/* Install the program in @fd for this thread; needs no_new_privs (or CAP_SYS_ADMIN). */
int seccomp_install(int fd);

/* The same for every thread of the process, or none; what it refuses is told in the kernel's log. */
int seccomp_install_all(int fd);

/* What a workload may call; see the tables. Also the base of QEMU's. */
extern const struct seccomp_policy seccomp_workload;
/* What the keeper itself, and so all its children, must never call. */
extern const struct seccomp_policy seccomp_keeper;
/* What hotcelld may call when it serves; then, connected to its keeper, no more sockets. */
extern const struct seccomp_policy seccomp_daemon;
extern const struct seccomp_policy seccomp_daemon_settled;
