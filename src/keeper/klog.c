/* keeper/klog.c - log lines, each in one write */
#include "keeper/klog.h"
#include <stdarg.h>
#include <unistd.h>
#include "base/macro.h"
#include "base/str.h"
#include "sys/clock.h"
#include "sys/logfile.h"

enum { LINE_MAX_BYTES = 2048 };

void klog(const char *fmt, ...)
{
	struct str line = STR_INIT(LINE_MAX_BYTES);
	va_list ap;

	str_addf(&line, "time=%llu ", (unsigned long long)(sys_unix_ns() / NS_PER_MS));
	va_start(ap, fmt);
	str_addv(&line, fmt, ap);
	va_end(ap);
	str_add(&line, "\n");
	logfile_write(STDERR_FILENO, "keeper.log", LOGFILE_MAX, line.p, line.len);
	str_deinit(&line);
}
