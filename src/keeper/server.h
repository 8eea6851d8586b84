/*
 * keeper/server.h - the keeper's socket: one daemon at a time, closed verbs
 *
 * A new connection by somebody who may connect replaces the old one: daemons come
 * one after another. What the old one had asked for goes on; its answers are lost.
 * Thread: the keeper's loop.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct loop;
struct server;
struct slot;
struct machines;

/* What keeper.hello answers. Texts are lent for good. */
struct server_info {
	bool root, kvm;
	uint64_t tsc_khz;
	const char *kvm_reason, *qemu, *qemu_reason, *process_reason;
	const char *closure; /* SHA-256 of what runs as QEMU; "": none */
	unsigned limits; /* CGROUP_* that hold */
	/* Called once no daemon has been there for @linger_ms and no machine is left. */
	void (*unused)(void *arg);
	void *arg;
	uint64_t linger_ms;
};

/* @listen_fd: given. @daemon: may connect, as may root and the keeper's own uid. */
int server_new(struct loop *l, int listen_fd, uid_t daemon, const struct server_info *info,
	       struct server **ret, struct err *e);
struct server *server_free(struct server *v); /* NULL: fine */
void server_attach(struct server *v, struct machines *ms); /* once, before the loop runs */
void server_machine_gone(struct server *v, struct slot *s);
