/* sys/fault.c - make the n-th system call fail; per thread, so that tests may run side by side */
#include "sys/fault.h"

#ifdef HOTCELL_FAULTS
#include <signal.h>

/* The only mutable file-level data of the project, and only in test builds. */
static _Thread_local unsigned armed, seen;
static _Thread_local int with;

void sys_fault_arm(unsigned nth, int negative_errno)
{
	armed = nth;
	with = negative_errno;
	seen = 0;
}

unsigned sys_fault_seen(void)
{
	return seen;
}

int sys_fault(void)
{
	seen++;
	if (!armed || seen != armed)
		return 0;
	if (with == SYS_FAULT_KILL)
		(void)raise(SIGKILL);
	return with;
}
#else
extern int sys_fault_is_compiled_out;
int sys_fault_is_compiled_out = 1;
#endif
