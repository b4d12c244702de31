/* Tracepoints of the demo's program, as LTTng's users write them. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER demo
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./hello.h"
#if !defined(DEMO_HELLO_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define DEMO_HELLO_H
#include <lttng/tracepoint.h>

LTTNG_UST_TRACEPOINT_ENUM(demo, colour,
	LTTNG_UST_TP_ENUM_VALUES(
		lttng_ust_field_enum_value("RED", 0)
		lttng_ust_field_enum_value("GREEN", 1)
		lttng_ust_field_enum_range("DARK", 2, 9)))

LTTNG_UST_TRACEPOINT_EVENT(demo, greeting,
	LTTNG_UST_TP_ARGS(int, number, const char *, words),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int, number, number)
		lttng_ust_field_string(words, words)
		lttng_ust_field_float(double, half, number / 2.0)
		lttng_ust_field_enum(demo, colour, int, colour, number % 5)))
LTTNG_UST_TRACEPOINT_LOGLEVEL(demo, greeting, LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO)

#endif
#include <lttng/tracepoint-event.h>
