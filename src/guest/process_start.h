/* guest/process_start.h - first process of a process sandbox, which the keeper's jail has built */
#pragma once
#include "guest/agent.h"

struct err;

/*
 * process_start() - take what the jail left: descriptors 3 (link), 4 (filter), 5 (cgroup, maybe),
 * 6 (a count of those killed for memory, maybe)
 * @ret:	filled for agent_new(); its descriptors and the filter are given
 */
int process_start(struct agent_config *ret, struct err *e);
