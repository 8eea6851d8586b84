/* base/err.c - errors: raise, prefix, copy */
#include "base/err.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/macro.h"

const char *err_code_name(int code)
{
	static const char *const names[] = ERR_CODE_NAMES;

	if (code < 0 || (size_t)code >= ARRAY_LEN(names) || !names[code])
		return "unknown";
	return names[code];
}

[[gnu::format(printf, 3, 0)]] static int raise_va(struct err *e, int code, const char *fmt, va_list ap)
{
	if (e) {
		e->code = code;
		(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	}
	return -code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	raise_va(e, code, fmt, ap);
	va_end(ap);
	return -code;
}

int err_code_of_errno(int negative_errno)
{
	static const struct {
		int no, code;
	} map[] = {
		{EINVAL, ERR_INVALID},	     {ENOENT, ERR_NOT_FOUND},	 {ESRCH, ERR_NOT_FOUND},
		{ENOTDIR, ERR_INVALID},	     {EISDIR, ERR_INVALID},	 {ENAMETOOLONG, ERR_LIMIT},
		{EEXIST, ERR_CONFLICT},	     {EBUSY, ERR_CONFLICT},	 {ENOTEMPTY, ERR_CONFLICT},
		{EACCES, ERR_DENIED},	     {EPERM, ERR_DENIED},	 {ELOOP, ERR_DENIED},
		{ENOSPC, ERR_LIMIT},	     {EDQUOT, ERR_LIMIT},	 {EMFILE, ERR_LIMIT},
		{ENFILE, ERR_LIMIT},	     {E2BIG, ERR_LIMIT},	 {EFBIG, ERR_LIMIT},
		{ENOMEM, ERR_LIMIT},	     {EROFS, ERR_DENIED},	 {EXDEV, ERR_DENIED},
		{ETIMEDOUT, ERR_TIMEOUT},    {ECANCELED, ERR_CANCELED},	 {ENOSYS, ERR_UNSUPPORTED},
		{EOPNOTSUPP, ERR_UNSUPPORTED}, {ECONNREFUSED, ERR_UNAVAILABLE},
		{ECONNRESET, ERR_GONE},	     {EPIPE, ERR_GONE},		 {EAGAIN, ERR_UNAVAILABLE},
	};

	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].no == -negative_errno)
			return map[i].code;
	return ERR_INTERNAL;
}

int err_sys(struct err *e, int negative_errno, const char *fmt, ...)
{
	int code = err_code_of_errno(negative_errno);
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	raise_va(e, code, fmt, ap);
	va_end(ap);
	if (e) {
		n = strlen(e->text);
		(void)snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerror(-negative_errno));
	}
	return -code;
}

int err_disk(struct err *e, int negative_errno, const char *fmt, ...)
{
	char what[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (negative_errno == -ENOSPC || negative_errno == -EDQUOT)
		return err_set(e, ERR_LIMIT, "%.300s: " ERR_DISK_FULL, what);
	return err_sys(e, negative_errno, "%s", what);
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char old[ERR_TEXT_MAX];
	va_list ap;
	size_t n;

	if (!e)
		return -ERR_INTERNAL;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	(void)snprintf(e->text + n, sizeof(e->text) - n, ": %.*s", (int)sizeof(old) - 1, old);
	return -e->code;
}

int err_copy(struct err *to, const struct err *from)
{
	if (!from)
		return 0;
	if (to && to != from)
		*to = *from;
	return -from->code;
}
