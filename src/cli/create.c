/* cli/create.c - hotcell create */
#include "cli/create.h"
#include "base/err.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/waiting.h"
#include "client/conn.h"
#include "client/hold.h"
#include "sys/clock.h"
#include "wire/gen/methods.h"

int create_sandbox(struct cli *c, const struct rec_sandbox_create *rec, struct str *bytes,
		   struct rec_sandbox_info *ret, struct hold **ret_hold, struct err *e)
{
	struct rec_sandbox_create named = *rec;
	struct waiting waiting;
	char request[ID_TEXT];
	struct id id;
	int r;

	if (rec->name.n && !id_name_ok(rec->name.p, rec->name.n))
		return err_set(e, ERR_INVALID,
			       "--name: \"%.*s\": 1 to 64 letters, digits, '_', '.' or '-', not starting "
			       "with '.' or '-', and not shaped like an id",
			       (int)rec->name.n, rec->name.p);
	r = sys_random(&id, sizeof(id));
	if (r < 0)
		return err_sys(e, r, "random request id");
	id_format(&id, request);
	named.request_id = span_of(request);
	named.ephemeral = ret_hold != NULL;
	waiting_begin(&waiting, c, "making the sandbox (a boot takes seconds)");
	if (ret_hold)
		r = hold_create(c->conn, &named, bytes, ret, ret_hold, e);
	else
		r = conn_call(c->conn, METHOD_SANDBOX_CREATE, &named, bytes, ret, e);
	waiting_end(&waiting);
	return r;
}

void create_note_boot(const struct cli *c, const struct rec_sandbox_create *rec,
		      const struct rec_sandbox_info *info)
{
	if (span_is(info->path, "boot") && !span_is(rec->isolation, "process") && !rec->cold && !rec->disk_only)
		cli_note(c,
			 "booted: template %.*s is not hot in this size; 'hotcell template build %.*s' "
			 "once, with the same sizes, makes the next ones forks",
			 (int)info->template.n, info->template.p, (int)info->template.n, info->template.p);
}

int run_create(struct cli *c, const struct args *a, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(256);
	struct rec_sandbox_info info;
	char id[ID_TEXT];
	int r = cli_connect(c, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = create_sandbox(c, args_rec(a, &rec_sandbox_create_type), &bytes, &info, NULL,
				   e);
	if (r == 0 && c->json) {
		r = cli_put_json(&rec_sandbox_info_type, &info, e);
	} else if (r == 0) {
		id_format(&info.id, id);
		str_addf(&out, "%s\n", id);
		r = cli_put(&out, e);
		create_note_boot(c, args_rec(a, &rec_sandbox_create_type), &info);
	}
	str_deinit(&bytes);
	str_deinit(&out);
	return r;
}
