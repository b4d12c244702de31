/* The events of bench.c. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER bench

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./bench-tp.h"

#if !defined(BENCH_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define BENCH_TP_H

#include <lttng/tracepoint.h>

LTTNG_UST_TRACEPOINT_EVENT(bench, int,
	LTTNG_UST_TP_ARGS(int, a),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, a, a))
)

LTTNG_UST_TRACEPOINT_EVENT(bench, int_string,
	LTTNG_UST_TP_ARGS(int, a, const char *, text),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int, a, a)
		lttng_ust_field_string(text, text)
	)
)

LTTNG_UST_TRACEPOINT_EVENT(bench, ints,
	LTTNG_UST_TP_ARGS(int, a, int, b, int, c, int, d),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int, a, a)
		lttng_ust_field_integer(int, b, b)
		lttng_ust_field_integer(int, c, c)
		lttng_ust_field_integer(int, d, d)
	)
)

/* Never enabled. */
LTTNG_UST_TRACEPOINT_EVENT(bench, off,
	LTTNG_UST_TP_ARGS(int, a),
	LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, a, a))
)

#endif
#include <lttng/tracepoint-event.h>
