/*
 * sys/kvm_probe.c - count loops of a tiny guest for a millisecond
 *
 * One page of code in real mode, which is privilege level 0 and runs natively on any
 * processor of the last decade: increment a counter in memory for ever. A timer
 * signal ends KVM_RUN; the counter is read from the host's side of the memory. Some hosts
 * offer a /dev/kvm that interprets level 0, a thousand times slower: no
 * stock kernel boots there.
 */
#include "sys/kvm_probe.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { CODE_AT = 0x1000, COUNT_AT = 0x1800, GUEST_BYTES = 0x2000, RUN_MS = 2, LOOPS_PER_STORE = 256 };

/*
 *	again:	mov cx, 256
 *	loop:	dec cx
 *		jnz loop
 *		inc dword [0x1800]
 *		jmp again
 */
static const unsigned char code[] = {
	0xb9, 0x00, 0x01, 0x49, 0x75, 0xfd, 0x66, 0xff, 0x06, 0x00, 0x18, 0xeb, 0xf3,
};

struct guest {
	int kvm, vm, vcpu;
	unsigned char *memory;
	struct kvm_run *run;
	size_t run_bytes;
};

static void guest_deinit(struct guest *g)
{
	if (g->run)
		(void)munmap(g->run, g->run_bytes);
	(void)sys_close(g->vcpu);
	(void)sys_close(g->vm);
	(void)sys_close(g->kvm);
	if (g->memory)
		(void)munmap(g->memory, GUEST_BYTES);
}

static int guest_memory(struct guest *g)
{
	struct kvm_userspace_memory_region region = {.memory_size = GUEST_BYTES};
	void *p = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	g->memory = p;
	memcpy(g->memory + CODE_AT, code, sizeof(code));
	region.userspace_addr = (uintptr_t)p;
	return ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int guest_registers(struct guest *g)
{
	struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	return ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0
		       ? -errno
		       : 0;
}

static int guest_init(struct guest *g)
{
	int r;
	void *p;

	*g = (struct guest){.kvm = -1, .vm = -1, .vcpu = -1};
	g->kvm = sys_open("/dev/kvm", O_RDWR);
	if (g->kvm < 0)
		return g->kvm;
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return -errno;
	r = guest_memory(g);
	if (r < 0)
		return r;
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return -errno;
	r = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < 0)
		return -errno;
	g->run_bytes = (size_t)r;
	p = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (p == MAP_FAILED)
		return -errno;
	g->run = p;
	return guest_registers(g);
}

/* A signal that only interrupts. */
static void nothing(int sig)
{
	(void)sig;
}

/* Run for RUN_MS; the timer repeats, in case it fires before KVM_RUN is entered. */
static int guest_run(struct guest *g, uint64_t *ret_ns)
{
	struct sigaction act = {.sa_handler = nothing}, old;
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec when = {
		.it_value.tv_nsec = RUN_MS * NS_PER_MS,
		.it_interval.tv_nsec = RUN_MS * NS_PER_MS,
	};
	uint64_t start;
	timer_t timer;
	int r;

	if (sigaction(SIGALRM, &act, &old) < 0 || timer_create(CLOCK_MONOTONIC, &sev, &timer) < 0)
		return -errno;
	start = sys_now_ns();
	(void)timer_settime(timer, 0, &when, NULL);
	r = ioctl(g->vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
	*ret_ns = MAX(sys_now_ns() - start, (uint64_t)1);
	(void)timer_delete(timer);
	(void)sigaction(SIGALRM, &old, NULL);
	return r == -EINTR ? 0 : r < 0 ? r : -EIO; /* it may end only by the signal */
}

static void say(struct kvm_probe *ret, const char *what, int no)
{
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s: %s", what, strerror(-no));
}

void kvm_probe(struct kvm_probe *ret)
{
	struct guest g;
	uint64_t ns = 1;
	uint32_t count;
	int r = guest_init(&g);

	*ret = (struct kvm_probe){0};
	if (r < 0) {
		say(ret, g.kvm < 0 ? "/dev/kvm can't be opened" : "KVM refuses a machine", r);
	} else {
		r = guest_run(&g, &ns);
		memcpy(&count, g.memory + COUNT_AT, sizeof(count));
		ret->loops_per_s = count * (uint64_t)LOOPS_PER_STORE * 1000000 / MAX(ns / NS_PER_US, (uint64_t)1);
		ret->runs = r == 0;
		if (r < 0)
			say(ret, "a test guest on KVM does not run", r);
		else if (ret->loops_per_s < KVM_PROBE_LOOPS_PER_S)
			(void)snprintf(ret->reason, sizeof(ret->reason),
				       "/dev/kvm opens, but a guest's kernel code is interpreted: "
				       "%.1f million loops/s measured, %.0f needed",
				       (double)ret->loops_per_s / 1e6,
				       (double)KVM_PROBE_LOOPS_PER_S / 1e6);
		else
			ret->usable = true;
	}
	guest_deinit(&g);
}
