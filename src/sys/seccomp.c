/* sys/seccomp.c - tables to BPF, by libseccomp */
#include "sys/seccomp.h"
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include "sys/call_int.h"
#include "sys/fd.h"

static uint32_t action(enum seccomp_do act, int answer)
{
	switch (act) {
	case SECCOMP_DO_ALLOW:
		return SCMP_ACT_ALLOW;
	case SECCOMP_DO_ERRNO:
		return SCMP_ACT_ERRNO((uint32_t)answer);
	case SECCOMP_DO_KILL:
		break;
	}
	return SCMP_ACT_KILL_PROCESS;
}

static int add_rule(scmp_filter_ctx ctx, const struct seccomp_policy *p,
		    const struct seccomp_rule *rule)
{
	struct scmp_arg_cmp cmp[1 + SECCOMP_ALSO_MAX] = {
		{rule->arg, SCMP_CMP_MASKED_EQ, rule->mask, rule->value}};
	unsigned n = rule->mask ? 1 : 0;
	uint32_t act = action(rule->act, rule->answer);
	int nr = rule->number ? rule->number : seccomp_syscall_resolve_name(rule->call);

	if (nr == __NR_SCMP_ERROR)
		return rule->act == SECCOMP_DO_ALLOW ? 0 : -EINVAL; /* never lose a denial to a typing mistake */
	if (act == action(p->otherwise, p->otherwise_answer))
		return 0; /* libseccomp refuses rules that say what happens anyway */
	for (unsigned i = 0; i < SECCOMP_ALSO_MAX; i++)
		if (rule->also[i].differs)
			cmp[n++] = (struct scmp_arg_cmp){rule->also[i].arg, SCMP_CMP_NE, rule->also[i].value, 0};
		else if (rule->also[i].mask)
			cmp[n++] = (struct scmp_arg_cmp){rule->also[i].arg, SCMP_CMP_MASKED_EQ, rule->also[i].mask,
							 rule->also[i].value};
	return seccomp_rule_add_array(ctx, act, nr, n, cmp);
}

static int fill(scmp_filter_ctx ctx, const struct seccomp_policy *p)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));

	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree: ~8 steps instead of ~300 */
	for (const struct seccomp_rule *const *t = p->tables; *t && r == 0; t++)
		for (const struct seccomp_rule *rule = *t; rule->call && r == 0; rule++)
			r = add_rule(ctx, p, rule);
	return r;
}

int seccomp_compile(const struct seccomp_policy *p, int *ret_fd)
{
	AUTO_CLOSE int fd = sys_memfd(p->name, MFD_ALLOW_SEALING);
	scmp_filter_ctx ctx;
	int r;

	if (fd < 0)
		return fd;
	ctx = seccomp_init(action(p->otherwise, p->otherwise_answer));
	if (!ctx)
		return -ENOMEM;
	r = fill(ctx, p);
	if (r == 0)
		r = seccomp_export_bpf(ctx, fd);
	seccomp_release(ctx);
	if (r == 0)
		r = SYS_CALL(fcntl(fd, F_ADD_SEALS,
				   F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}
