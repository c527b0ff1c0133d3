/* fail: what a test's program ends with when something happens that no test expects. */
#ifndef NDIO_TESTS_FAIL_H
#define NDIO_TESTS_FAIL_H

#include <stdio.h>
#include <stdlib.h>

#define fail(...)                                                                                  \
	do {                                                                                       \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		exit(1);                                                                           \
	} while (0)

#endif
