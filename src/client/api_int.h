/* client/api_int.h - what is behind the names of include/hotcell.h */
#pragma once
#include <hotcell.h>
#include <stdlib.h>
#include "base/err.h"
#include "base/str.h"
#include "wire/gen/records.h"

struct conn;
struct hold;

/* struct err and struct hotcell_error have one shape; api.c asserts it. */
static inline struct err *api_err(struct hotcell_error *e)
{
	return (struct err *)e;
}

struct hotcell {
	struct conn *conn;
};

struct hotcell_sandbox {
	struct hotcell *h;
	struct str bytes; /* the encoded record */
	struct rec_sandbox_info info;
	char id[ID_TEXT], name[LIMIT_TEXT_SHORT + 1], wall[33], template[LIMIT_TEXT_SHORT + 1];
	struct str json;
	struct hold *hold; /* of an ephemeral one made here */
};

struct hotcell_list {
	struct hotcell *h;
	struct hotcell_sandbox **items;
	size_t n, cap;
};

/* An item handler of conn_items(): the sandbox joins the list @arg. */
int api_on_sandbox(void *arg, const void *item, struct err *e);

/* A call that answers with the sandbox; the handle knows it from then on. */
int api_sandbox_ask(struct hotcell_sandbox *s, unsigned method, const void *req, struct err *e);

/*
 * Copy of an options struct whose size the caller states: what is beyond its end is zero, what
 * it has beyond ours must be zero. -ERR_INVALID.
 */
int api_options(const void *given, void *ret, size_t size, const char *what, struct err *e);

/* NULL-terminated texts as a list value; @limit in bytes. */
int api_list(const char *const *texts, struct str *list, struct strv *ret, const char *what,
	     struct err *e);
