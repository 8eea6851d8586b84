/*
 * sys/fault.h - make the n-th system call fail, for tests. Every sys_ function
 * passes here first; in builds without HOTCELL_FAULTS it costs nothing.
 */
#pragma once

#define SYS_FAULT_KILL 1 /* instead of a negative errno: the process dies before that call, as by kill -9 */

#ifdef HOTCELL_FAULTS
/* Fail the @nth call from now (1: the next) with @negative_errno, once; 0 disarms. */
void sys_fault_arm(unsigned nth, int negative_errno);
/* Calls seen since sys_fault_arm(): a loop over n ends when it stays below n. */
unsigned sys_fault_seen(void);
int sys_fault(void); /* 0, or the errno to fail with */
#else
static inline int sys_fault(void)
{
	return 0;
}
#endif
