/* keeper/qemu_memory.c - the object that QEMU is lent */
#include "keeper/qemu_memory.h"
#include <fcntl.h>
#include <sys/mman.h>
#include "base/err.h"
#include "sys/fd.h"

int qemu_memory_object_new(int *ret_fd, struct err *e)
{
	AUTO_CLOSE int fd = sys_memfd("hotcell-qemu-memory", MFD_ALLOW_SEALING);
	int r = fd;

	if (r >= 0)
		r = sys_write_full(fd, qemu_memory_object, qemu_memory_object_bytes);
	if (r == 0)
		r = sys_seal(fd, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	if (r < 0)
		return err_sys(e, r, "make the object that maps a machine's memory");
	*ret_fd = take_fd(&fd);
	return 0;
}
