/*
 * guest/identity.h - what tells a machine from its copies: host name, machine id, boot id
 *
 * A copy takes new ones before its workload goes on, so this is on the way of every
 * fork. In a machine both ids are files of ours in memory that lie over those the
 * workload reads, and stay open: a new id is one write, with no path to walk and no
 * disk to ask.
 *
 * Thread: the agent's loop; nothing here blocks.
 */
#pragma once
#include "base/span.h"
#include "loop/loop.h"
#include "wire/gen/limits.h"

struct err;
struct guest_log;
struct id;

enum { IDENTITY_SEED_MAX = 64, IDENTITY_LINE = 10 + 64 + 1 }; /* address, tab; host names are padded; newline */

struct identity {
	struct loop *loop;
	struct loop_call hosts;
	int random_fd, machine_id_fd, boot_id_fd; /* -1: none */
	char boot_id[LIMIT_TEXT_SHORT + 1];	  /* without its newline; "": unknown */
	int hosts_fd;				  /* -1: no line of ours is in it */
	uint64_t hosts_at, hosts_ino;		  /* where the line begins, and in which file */
	char hosts_line[IDENTITY_LINE + 1];
};

void identity_init(struct identity *i, struct loop *l, int proc_fd); /* of a sandbox that shares its kernel */
/* A machine's: /proc of the workload is mounted. What can't be laid over is logged, and written itself. */
void identity_cover(struct identity *i, struct guest_log *log);
void identity_deinit(struct identity *i);

/* Mix @seed (at most IDENTITY_SEED_MAX bytes) into the kernel's pool, counted, and use it at once. */
int identity_reseed(const struct identity *i, struct span seed, struct err *e);
int identity_set_machine_id(const struct identity *i, const struct id *id, struct err *e);
int identity_renew_boot_id(struct identity *i, struct err *e); /* random: after the reseed */
int identity_set_hostname(struct span name, struct err *e); /* -ERR_INVALID */
/*
 * /etc/hosts gets the host name, and loses one we wrote before: from the loop, after what was
 * said until now is on its way and before anything more is heard. It takes longer than all above.
 */
void identity_resolve_hostname(struct identity *i);
