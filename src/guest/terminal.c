/* guest/terminal.c - pseudo terminals */
#include "guest/terminal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "base/err.h"
#include "sys/fd.h"

enum { ROWS = 24, COLS = 80, TTY_GROUP = 5 };

int terminal_resize(int master, unsigned rows, unsigned cols, struct err *e)
{
	struct winsize ws = {
		.ws_row = (unsigned short)(rows ? rows : ROWS),
		.ws_col = (unsigned short)(cols ? cols : COLS),
	};

	return ioctl(master, TIOCSWINSZ, &ws) < 0 ? err_sys(e, -errno, "resize the terminal") : 0;
}

/* Backspace takes a whole character away, not one of its bytes. */
static void set_utf8(int master)
{
	struct termios tio;

	if (tcgetattr(master, &tio) < 0)
		return;
	tio.c_iflag |= IUTF8;
	(void)tcsetattr(master, TCSANOW, &tio);
}

int terminal_open(uid_t owner, unsigned rows, unsigned cols, int *ret_master, int *ret_slave,
		  struct err *e)
{
	/* The instance that the workload sees, whichever way /dev/ptmx points. */
	AUTO_CLOSE int master = sys_open("/dev/pts/ptmx", O_RDWR | O_NOCTTY);
	AUTO_CLOSE int slave = -1;
	int unlock = 0, r;

	if (master < 0)
		return err_sys(e, master, "open a terminal (/dev/pts/ptmx)");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return err_sys(e, -errno, "unlock the terminal");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return err_sys(e, -errno, "open the terminal's other side");
	if (fchown(slave, owner, TTY_GROUP) < 0 || fchmod(slave, 0620) < 0)
		return err_sys(e, -errno, "give the terminal to its user");
	set_utf8(master);
	r = terminal_resize(master, rows, cols, e);
	if (r < 0)
		return r;
	*ret_master = take_fd(&master);
	*ret_slave = take_fd(&slave);
	return 0;
}

enum terminal_input terminal_input(int master)
{
	struct termios tio;
	struct pollfd ask = {.events = POLLIN};
	int n;

	/* The other side, for a moment: an end of input that nobody took counts in no ioctl, only here. */
	ask.fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (ask.fd < 0)
		return TERMINAL_UNREAD;
	n = poll(&ask, 1, 0);
	(void)sys_close(ask.fd);
	if (n != 0 || tcgetattr(master, &tio) < 0)
		return TERMINAL_UNREAD;
	return tio.c_lflag & ICANON ? TERMINAL_LINES : TERMINAL_KEYS;
}

bool terminal_put_end(int master)
{
	struct termios tio;
	char eof;

	if (tcgetattr(master, &tio) < 0)
		return false;
	eof = (char)tio.c_cc[VEOF];
	if (eof != _POSIX_VDISABLE)
		(void)sys_write(master, &eof, 1); /* no room: what is there is not read, and this comes again */
	return !(tio.c_lflag & ICANON);
}
