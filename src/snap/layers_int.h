/* snap/layers_int.h - layers of a folder, by its descriptor. Any thread; block on disk. */
#pragma once
struct err;

/* Layers 0 to @n - 1 of @from_fd, under the same names in @to_fd, sealed: links or copies (LAYERS-3). */
int layers_share(int from_fd, int to_fd, unsigned n, struct err *e);

/* The memory a machine began with, for the sets that are made of it: snap/set.h. */
#define LAYERS_BASE "base"

/* @name of @from_fd as the base in @to_fd. Return: 0 or -errno; -ENOENT: there is none, or it can't be shared. */
int layers_link_base(int from_fd, const char *name, int to_fd);

/* What is in layers 0 to @n - 1 reaches the disk. */
int layers_sync(int folder_fd, unsigned n, struct err *e);
