/* guest/terminal.h - pseudo terminals */
#pragma once
#include <sys/types.h>

struct err;

/* @ret_master, @ret_slave: given. The slave belongs to @owner. 0 rows or columns: 24 by 80. */
int terminal_open(uid_t owner, unsigned rows, unsigned cols, int *ret_master, int *ret_slave,
		  struct err *e);
int terminal_resize(int master, unsigned rows, unsigned cols, struct err *e);
