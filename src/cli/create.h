/* cli/create.h - make a sandbox */
#pragma once

struct conn;
struct err;
struct hold;
struct rec_sandbox_create;
struct rec_sandbox_info;
struct str;

/*
 * With a request id of its own, so that asking twice makes one. @bytes holds the texts of @ret.
 * @ret_hold: an ephemeral one; NULL: one that stays.
 */
int create_sandbox(struct conn *c, const struct rec_sandbox_create *rec, struct str *bytes,
		   struct rec_sandbox_info *ret, struct hold **ret_hold, struct err *e);
