/* path: paths of files. */
#ifndef NDIO_PATH_H
#define NDIO_PATH_H

/* The same file's, wherever the process may go later; the caller frees it. NULL: errno has why. */
char *path_absolute(const char *path);

#endif
