/* cli/port.c - hotcell port: a TCP port of this host into a sandbox */
#include <signal.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "client/conn.h"
#include "client/hold.h"
#include "client/tunnel.h"
#include "wire/gen/methods.h"

struct ports {
	uint16_t local, guest;
};

struct forwarding {
	struct conn_op op;
	struct cli *cli;
	struct err why; /* the sandbox is no more */
};

static int port_number(const char *text, size_t n, uint64_t least, uint16_t *ret, struct err *e)
{
	char word[8];
	uint64_t v;

	span_copy((struct span){text, n}, word, sizeof(word));
	if (n >= sizeof(word) || str_to_u64(word, least, 65535, &v) < 0)
		return err_set(e, ERR_INVALID, "[LOCAL:]GUEST: \"%.*s\" is not a port (%llu to 65535)",
			       (int)MIN(n, (size_t)60), text, (unsigned long long)least);
	*ret = (uint16_t)v;
	return 0;
}

static int parse(const char *word, struct ports *ret, struct err *e)
{
	const char *colon = strchr(word, ':'), *guest = colon ? colon + 1 : word;
	int r = port_number(guest, strlen(guest), 1, &ret->guest, e);

	ret->local = 0;
	if (r == 0 && colon)
		r = port_number(word, (size_t)(colon - word), 0, &ret->local, e);
	return r;
}

static void on_signal(void *arg, int signo)
{
	struct forwarding *f = arg;

	if (signo == SIGINT || signo == SIGTERM || signo == SIGHUP || signo == SIGQUIT)
		f->op.done = true;
}

static void on_cancel(struct conn_op *op)
{
	op->done = true;
}

static void on_failed(void *arg, const struct err *why)
{
	struct forwarding *f = arg;

	cli_note(f->cli, "connection: %s", why->text);
}

/* A listener that leads nowhere would only look alive. */
static void on_gone(void *arg, const struct err *why)
{
	struct forwarding *f = arg;

	err_set(&f->why, ERR_GONE, "the sandbox is gone");
	if (why) {
		f->why = *why;
		err_wrap(&f->why, "the sandbox is gone");
	}
	f->op.done = true;
}

static int announce(const struct cli *c, uint16_t local, const struct ports *p, struct err *e)
{
	struct str out = STR_INIT(256);
	int r;

	if (c->json)
		str_addf(&out, "{\"address\":\"127.0.0.1\",\"port\":%u,\"guest_port\":%u}\n", local,
			 p->guest);
	else
		str_addf(&out, "127.0.0.1:%u\n", local);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

/* A name nobody has would otherwise show only at the first connection. */
static int check_sandbox(struct cli *c, const char *name, struct id *ret, struct err *e)
{
	struct rec_sandbox_ref ref = {span_of(name)};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	int r = conn_call(c->conn, METHOD_SANDBOX_INFO, &ref, &bytes, &info, e);

	if (r == 0)
		*ret = info.id;
	str_deinit(&bytes);
	return r;
}

int run_port(struct cli *c, const struct args *a, struct err *e)
{
	struct forwarding f = {.op.cancel = on_cancel, .cli = c};
	struct tunnel *t = NULL;
	struct hold *hold = NULL;
	struct ports p;
	struct id id;
	int r = parse(a->operand[1], &p, e);

	if (r == 0)
		r = cli_connect(c, e);
	if (r == 0)
		r = check_sandbox(c, a->operand[0], &id, e);
	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = tunnel_open(c->conn, a->operand[0], p.guest, p.local, on_failed, &f, &t, e);
	if (r == 0) /* an open port is use */
		r = hold_open(c->conn, &id, on_gone, &f, &hold, e);
	if (r == 0)
		r = announce(c, tunnel_port(t), &p, e);
	if (r == 0) {
		signals_redirect(c->signals, on_signal, &f);
		r = conn_run(c->conn, &f.op, e);
		cli_default_signals(c);
	}
	hold_stop(hold);
	tunnel_close(t);
	return r < 0 ? r : err_copy(e, f.why.code ? &f.why : NULL);
}
