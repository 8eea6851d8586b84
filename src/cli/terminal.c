/* cli/terminal.c - the terminal of the person at the keyboard */
#include "cli/terminal.h"
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/err.h"

bool terminal_is(int fd)
{
	return isatty(fd) == 1;
}

bool terminal_is_background(int fd)
{
	return terminal_is(fd) && tcgetpgrp(fd) != getpgrp();
}

void terminal_size(int fd, unsigned *ret_rows, unsigned *ret_cols)
{
	struct winsize w = {0};

	(void)ioctl(fd, TIOCGWINSZ, &w);
	*ret_rows = w.ws_row ? w.ws_row : 24;
	*ret_cols = w.ws_col ? w.ws_col : 80;
}

int terminal_raw(struct terminal *t, int fd, struct err *e)
{
	struct termios raw;

	*t = (struct terminal){.fd = fd};
	if (tcgetattr(fd, &t->before) < 0)
		return err_sys(e, -errno, "read the terminal's settings");
	raw = t->before;
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
		return err_sys(e, -errno, "set the terminal to raw mode");
	t->is_raw = true;
	return 0;
}

void terminal_restore(struct terminal *t)
{
	if (t->is_raw)
		(void)tcsetattr(t->fd, TCSADRAIN, &t->before);
	t->is_raw = false;
}
