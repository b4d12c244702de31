/* Fires each event of all-tp.h. Also compiled as C++ and with _LGPL_SOURCE. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "all-tp.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
	static const unsigned char bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	char text[80];
	size_t length;

	lttng_ust_tracepoint(all, types, 42, "hello", bytes, 5);
	lttng_ust_tracepoint(all, sum, 1, 2);
	lttng_ust_tracepoint(all, difference, 3, 4);
	lttng_ust_tracepoint(all, empty);
	for (length = 0; length < 70; length += 7) {
		memset(text, 'x', length);
		text[length] = 0;
		lttng_ust_tracepoint(all, strings, text, "end");
	}
	return 0;
}
