/*
 * keeper/copier.h - the memory of a machine as it stands, in a file of its own
 *
 * A machine maps its memory file privately, and zeros where that has holes (keeper/qemu_memory.h):
 * what it wrote is in its own pages, the rest is the file's. A copy is both. A process of its own
 * makes it, with several threads, so that the keeper answers others meanwhile, in two steps: what
 * does not change is copied while the machine runs; what it wrote, while its vCPUs stand still.
 *
 * COPIER-1 The machine is only read, through /proc and process_vm_readv(2); what it maps
 *	    where is not believed beyond the bounds of the file. The process that copies has no
 *	    capability left: it owns the machine's user namespace, or is the machine's user.
 * COPIER-2 The result is sealed before anybody else gets it.
 *
 * Thread: the keeper's loop. Completions come later, never from inside the call.
 */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct copier;
struct err;
struct loop;

/* Until it is prepared; until somebody asks for the rest, or takes it; until that is done. Then `failed` comes. */
enum { COPIER_PREPARE_MS = 60000, COPIER_IDLE_MS = 60000, COPIER_COPY_MS = 30000 };

struct copier_events {
	void (*prepared)(void *arg); /* once */
	void (*copied)(void *arg, uint64_t bytes, uint64_t us); /* once, after copier_copy(): then copier_take() */
	void (*failed)(void *arg, const struct err *why); /* once, and nothing after it */
	void *arg;
};

/*
 * copier_new() - begin
 * @pid:	the machine, a child of ours that is not reaped while this lives
 * @memory_fd:	the file it maps; lent
 * @bytes:	its size
 */
int copier_new(struct loop *l, pid_t pid, int memory_fd, uint64_t bytes, const struct copier_events *ev,
	       struct copier **ret, struct err *e);
int copier_copy(struct copier *c, struct err *e); /* after `prepared`, once */
/* After `copied`: the sealed file, lent. It takes some ms to let go of, for which no machine has to stand still. */
int copier_take(struct copier *c, int *ret_fd, struct err *e);
struct copier *copier_free(struct copier *c);	  /* kills it, waits until it is dead. NULL: fine */
