/* A program instrumented with LTTng-UST, which knows nothing of Sillage. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "hello.h"
#include <stdio.h>

int main(void)
{
	static const char *const words[] = { "good morning", "good evening", "good night" };

	for (int i = 0; i < 1000; i++)
		lttng_ust_tracepoint(demo, greeting, i, words[i % 3]);
	puts("hello-traced: a thousand greetings");
	return 0;
}
