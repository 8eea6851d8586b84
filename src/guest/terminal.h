/* guest/terminal.h - pseudo terminals */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

struct err;

/* @ret_master, @ret_slave: given. The slave belongs to @owner. 0 rows or columns: 24 by 80. */
int terminal_open(uid_t owner, unsigned rows, unsigned cols, int *ret_master, int *ret_slave,
		  struct err *e);

/* What became of the input that was written to @master. */
enum terminal_input {
	TERMINAL_UNREAD, /* the program has not taken all that it could */
	TERMINAL_LINES,	 /* it has; it is given lines, and the end of input */
	TERMINAL_KEYS,	 /* it has; it reads keys itself, the end of input is one of them */
};
enum terminal_input terminal_input(int master);
/*
 * The character that ends the input; of a line that was begun it ends only the line.
 * Returns whether it went to a program that reads keys.
 */
bool terminal_put_end(int master);
int terminal_resize(int master, unsigned rows, unsigned cols, struct err *e);
