/* guest/log.c - rate-limited lines to the kernel log or standard error */
#include "guest/log.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/macro.h"
#include "base/str.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { BURST = 50, LINE_MAX_BYTES = 800 };
static const uint64_t REFILL_NS = 10 * NS_PER_S;

void log_init(struct guest_log *log, int fd, bool is_kmsg)
{
	*log = (struct guest_log){.fd = fd, .is_kmsg = is_kmsg, .left = BURST};
}

void log_deinit(struct guest_log *log)
{
	log->fd = sys_close(log->fd);
}

static bool may_speak(struct guest_log *log)
{
	uint64_t now = sys_now_ns();

	if (now >= log->refill_ns) {
		log->refill_ns = now + REFILL_NS;
		log->left = BURST;
	}
	if (log->left == 0) {
		log->dropped++;
		return false;
	}
	log->left--;
	return true;
}

void log_line(struct guest_log *log, const char *fmt, ...)
{
	struct str line = STR_INIT(2 * LINE_MAX_BYTES);
	char text[LINE_MAX_BYTES];
	va_list ap;

	if (log->fd < 0 || !may_speak(log))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	str_add(&line, log->is_kmsg ? "<3>hotcell-init: " : "hotcell-init: ");
	if (log->dropped)
		str_addf(&line, "(%u lines dropped) ", log->dropped);
	log->dropped = 0;
	str_add_escaped(&line, text, strlen(text));
	str_add(&line, "\n");
	(void)sys_write(log->fd, line.p, line.len);
	str_deinit(&line);
}
