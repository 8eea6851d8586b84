/* sys/call_int.h - run a system call for sys/: faults injected, EINTR retried, -errno returned */
#pragma once
#include <errno.h>
#include "sys/fault.h"

#define SYS_CALL(expr)                                                                             \
	({                                                                                         \
		__typeof__(expr) r_;                                                               \
		int fault_ = sys_fault();                                                          \
		if (fault_)                                                                        \
			r_ = (__typeof__(expr))fault_;                                             \
		else                                                                               \
			do {                                                                       \
				r_ = (expr);                                                       \
				if (r_ < 0)                                                        \
					r_ = (__typeof__(expr)) - errno;                           \
			} while (r_ == (__typeof__(expr)) - EINTR);                                \
		r_;                                                                                \
	})
