/*
 * client/hold.h - keep an ephemeral sandbox while this connection, or its successor, lives
 *
 * The daemon removes an ephemeral sandbox when nobody holds it. Opened again after each
 * reconnect. Thread: the connection's.
 */
#pragma once

struct conn;
struct err;
struct hold;

/* @sandbox: id or name, copied. Return: 0; -ERR_UNAVAILABLE when the connection is down. */
int hold_start(struct conn *c, const char *sandbox, struct hold **ret, struct err *e);
struct hold *hold_stop(struct hold *h); /* NULL is fine */
