/* cli/signals.c - signals as events of the connection's loop */
#include "cli/signals.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "loop/loop.h"
#include "sys/fd.h"

struct signals {
	struct loop *loop;
	struct loop_io io;
	int fd;
	sigset_t before;
	void (*on_signal)(void *arg, int signo);
	void *arg;
};

static const int handled[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT};

static void on_readable(struct loop_io *io, unsigned events)
{
	struct signals *s = CONTAINER_OF(io, struct signals, io);
	struct signalfd_siginfo info;

	(void)events;
	if (sys_read(io->fd, &info, sizeof(info)) == sizeof(info))
		s->on_signal(s->arg, (int)info.ssi_signo);
}

int signals_new(struct loop *l, void (*on_signal)(void *arg, int signo), void *arg,
		struct signals **ret, struct err *e)
{
	struct signals *s = mem_new(sizeof(*s));
	sigset_t set;
	int r;

	*s = (struct signals){.loop = l, .on_signal = on_signal, .arg = arg};
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(handled); i++)
		sigaddset(&set, handled[i]);
	(void)sigprocmask(SIG_BLOCK, &set, &s->before);
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = s->fd < 0 ? -errno : loop_io_add(l, &s->io, s->fd, LOOP_READ, on_readable);
	if (r < 0) {
		signals_free(s);
		return err_sys(e, r, "watch signals");
	}
	*ret = s;
	return 0;
}

void signals_redirect(struct signals *s, void (*on_signal)(void *arg, int signo), void *arg)
{
	s->on_signal = on_signal;
	s->arg = arg;
}

struct signals *signals_free(struct signals *s)
{
	if (!s)
		return NULL;
	loop_io_del(s->loop, &s->io);
	(void)sys_close(s->fd);
	(void)sigprocmask(SIG_SETMASK, &s->before, NULL);
	free(s);
	return NULL;
}
