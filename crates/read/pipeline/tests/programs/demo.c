/* Fires as many events as it is told, from two functions. */
#define LTTNG_UST_TRACEPOINT_DEFINE
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#include "demo-tp.h"
#include <stdlib.h>

static __attribute__((noinline)) void even(int number)
{
	lttng_ust_tracepoint(demo, tick, number, "even");
}

static __attribute__((noinline)) void odd(int number)
{
	lttng_ust_tracepoint(demo, tick, number, "odd");
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;

	for (int number = 0; number < count; number++) {
		if (number % 2)
			odd(number);
		else
			even(number);
	}
	return 0;
}
