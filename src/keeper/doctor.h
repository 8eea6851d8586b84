/* keeper/doctor.h - say line by line what this host can do, what not, why, and what to type */
#pragma once
#include <stdbool.h>

struct host_paths;

/*
 * Measures the host and prints it to standard output, as text or JSON.
 * Return: an exit status: 0 when at least one driver can be used here, else 1.
 */
int doctor_print(const struct host_paths *p, bool json);
