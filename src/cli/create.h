/* cli/create.h - make a sandbox */
#pragma once

struct cli;
struct err;
struct hold;
struct rec_sandbox_create;
struct rec_sandbox_info;
struct str;

/*
 * With a request id of its own, so that asking twice makes one. @bytes holds the texts of @ret.
 * @ret_hold: an ephemeral one; NULL: one that stays. A person sees that it takes its time.
 */
int create_sandbox(struct cli *c, const struct rec_sandbox_create *rec, struct str *bytes,
		   struct rec_sandbox_info *ret, struct hold **ret_hold, struct err *e);

/* Say that it booted where it could have been a fork, and how the next one can be. */
void create_note_boot(const struct cli *c, const struct rec_sandbox_create *rec, const struct rec_sandbox_info *info);
