/*
 * wire/qmp.h - QEMU's monitor: bytes to messages, commands to bytes
 *
 * A message is a line of JSON. The QEMU behind it may belong to its guest: lines, depth
 * and texts have maxima, only a few fields are looked at, and a line that is not a
 * message is an error of this monitor and of nothing else.
 *
 * QMP-1 Pieces make no difference: any cut of the same bytes yields the same messages.
 * QMP-2 After an error the parser yields nothing more.
 *
 * Source: QEMU's docs/interop/qmp-spec. No system calls. Any thread, one at a time.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/span.h"

struct err;
struct str;

enum {
	QMP_LINE_MAX = 64 * 1024, /* the longest answer we ask for is far below */
	QMP_DEPTH_MAX = 16,
	QMP_TEXT_MAX = 256,	  /* texts of messages are cut to this */
};

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	uint64_t id;			/* return, error: of the command; 0: none */
	char name[QMP_TEXT_MAX + 1];	/* event: its name; error: its class; greeting: "7.2.22" */
	/* Event: reason, action, status or error; error: description; return: status, or the text it is. */
	char text[QMP_TEXT_MAX + 1];
};

struct qmp_parser {
	char *line; /* owned */
	size_t len, cap;
	bool is_torn; /* the next line may have lost its beginning to another reader */
	bool failed;
};

/* @torn: somebody else read from this monitor before; half a line at the start is passed over. */
void qmp_parser_init(struct qmp_parser *p, bool torn);
void qmp_parser_deinit(struct qmp_parser *p);

/*
 * qmp_parse() - take bytes from the front of *in until a message is whole
 *
 * Return: 1 with *ret; 0 when *in is used up; -ERR_LIMIT, -ERR_INVALID.
 */
int qmp_parse(struct qmp_parser *p, struct span *in, struct qmp_message *ret, struct err *e);

/* Ids that JSON readers keep exact. */
#define QMP_ID_MAX ((UINT64_C(1) << 53) - 1)

/*
 * Add command @name with @id (1 to QMP_ID_MAX) as a line. @arguments: the text of a JSON
 * object, NULL: none. Both are our own, nothing in them comes from outside but numbers.
 */
void qmp_command(struct str *s, const char *name, const char *arguments, uint64_t id);

/* Add what makes QEMU forget a half command that another writer left. */
void qmp_flush(struct str *s);
