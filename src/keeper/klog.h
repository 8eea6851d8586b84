/* keeper/klog.h - the keeper's log: one line of key=value per event, to standard error */
#pragma once

/* "time=<unix ms> " and a newline are added. Foreign text goes through str_add_escaped() first. */
[[gnu::format(printf, 1, 2)]] void klog(const char *fmt, ...);
