/* snap/layers_int.h - layers of a folder, by its descriptor. Any thread; block on disk. */
#pragma once
struct err;

/* Layers 0 to @n - 1 of @from_fd, under the same names in @to_fd. */
int layers_link_all(int from_fd, int to_fd, unsigned n, struct err *e);

/* What is in layers 0 to @n - 1 reaches the disk. */
int layers_sync(int folder_fd, unsigned n, struct err *e);
