/* The events of scenario.c and of its plugin. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER scenario

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./scenario-tp.h"

#if !defined(SCENARIO_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define SCENARIO_TP_H

#include <lttng/tracepoint.h>

#ifndef SCENARIO_VALUE
#define SCENARIO_VALUE
typedef int (*scenario_value)(int);
#endif

LTTNG_UST_TRACEPOINT_EVENT(scenario, tick,
	LTTNG_UST_TP_ARGS(int, n),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, n, n))
)

LTTNG_UST_TRACEPOINT_EVENT(scenario, handled,
	LTTNG_UST_TP_ARGS(int, n),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, n, n))
)

LTTNG_UST_TRACEPOINT_EVENT(scenario, large,
	LTTNG_UST_TP_ARGS(const char *, bytes, size_t, count),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_sequence(char, bytes, bytes, size_t, count))
)

/* Its field takes time to compute, inside the traced call: signals come there. */
LTTNG_UST_TRACEPOINT_EVENT(scenario, slow,
	LTTNG_UST_TP_ARGS(int, n, scenario_value, f),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, n, f(n)))
)

#endif
#include <lttng/tracepoint-event.h>
