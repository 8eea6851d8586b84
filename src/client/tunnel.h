/*
 * client/tunnel.h - TCP connections of this host into a sandbox
 *
 * Bytes move with credit: a side that stops reading makes the other wait. A half-closed
 * connection stays open the other way. Thread: the connection's.
 */
#pragma once
#include <stdint.h>

struct conn;
struct err;
struct tunnel;

enum { TUNNEL_CONNECTIONS = 256 /* at once; more wait in the kernel's queue */ };

/*
 * tunnel_open() - listen on 127.0.0.1 and connect what comes to a port in @sandbox
 * @local_port:	0: a free one
 * @failed:	told of each connection that could not be made or broke; NULL: fine
 * Return: 0; -ERR_CONFLICT when the port is taken; -ERR_DENIED.
 */
int tunnel_open(struct conn *c, const char *sandbox, uint16_t guest_port, uint16_t local_port,
		void (*failed)(void *arg, const struct err *why), void *arg, struct tunnel **ret,
		struct err *e);
uint16_t tunnel_port(const struct tunnel *t);
struct tunnel *tunnel_close(struct tunnel *t); /* ends its connections; NULL is fine */
