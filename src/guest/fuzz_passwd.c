/* fuzz_passwd.c - the guest's passwd and group files, as hostile as they like */
#include <stdlib.h>
#include <string.h>
#include "guest/passwd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span file = {(const char *)data, size};
	size_t name_n = size ? data[0] % 16 : 0;
	struct span name = {(const char *)data, name_n < size ? name_n : size};
	struct user u;

	if (passwd_by_name(file, name, &u) == 0) {
		if (u.home[0] != '/' || strlen(u.name) > PASSWD_NAME_MAX || u.uid == (uid_t)-1)
			abort();
		passwd_groups(file, &u);
		if (u.n_groups > PASSWD_GROUPS_MAX)
			abort();
	}
	if (passwd_by_uid(file, 0, &u) == 0 && u.uid != 0)
		abort();
	(void)passwd_name_of(file, 1000);
	return 0;
}
