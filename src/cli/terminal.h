/* cli/terminal.h - the terminal of the person at the keyboard. One thread. */
#pragma once
#include <stdbool.h>
#include <termios.h>

struct err;

struct terminal {
	int fd;
	bool is_raw;
	struct termios before;
};

bool terminal_is(int fd);
/* May a read of @fd stop us because we run in the background? */
bool terminal_is_background(int fd);
void terminal_size(int fd, unsigned *ret_rows, unsigned *ret_cols); /* 24 x 80 when unknown */

/* Every key goes to the program, unchanged. Undo with terminal_restore(), on every way out. */
int terminal_raw(struct terminal *t, int fd, struct err *e);
void terminal_restore(struct terminal *t); /* not raw: fine */
