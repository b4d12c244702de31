/* Every field type of LTTng-UST's macros. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER all

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./all-tp.h"

#if !defined(ALL_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define ALL_TP_H

#include <lttng/tracepoint.h>

LTTNG_UST_TRACEPOINT_ENUM(all, colour,
	LTTNG_UST_TP_ENUM_VALUES(
#ifndef __cplusplus
		lttng_ust_field_enum_value("below", -7)
#endif
		lttng_ust_field_enum_value("red", 1)
		lttng_ust_field_enum_range("some", 2, 4)
		lttng_ust_field_enum_auto("next")
	)
)

LTTNG_UST_TRACEPOINT_EVENT(all, types,
	LTTNG_UST_TP_ARGS(int, number, const char *, text, const unsigned char *, bytes, size_t, count),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(signed char, i8, -number)
		lttng_ust_field_integer(unsigned short, u16, number)
		lttng_ust_field_integer(int, i32, -number)
		lttng_ust_field_integer_hex(unsigned long, hex, 0xabcdef0123456789UL + number)
		lttng_ust_field_integer_network(unsigned short, port, 0x1234)
		lttng_ust_field_integer_network_hex(unsigned int, address, 0x01020304)
		lttng_ust_field_integer_nowrite(int, unseen, number)
		lttng_ust_field_float(float, single, 1.5f)
		lttng_ust_field_float(double, twice, -2.25)
		lttng_ust_field_string(text, text)
		lttng_ust_field_string(nothing, NULL)
		lttng_ust_field_string_nowrite(silent, text)
		lttng_ust_field_array(unsigned char, array, bytes, 3)
		lttng_ust_field_array_hex(unsigned char, array_hex, bytes, 2)
		lttng_ust_field_array_network(unsigned short, array_network, (const unsigned short *) bytes, 2)
		lttng_ust_field_array_text(char, array_text, "abc\0def", 6)
		lttng_ust_field_sequence(unsigned char, sequence, bytes, size_t, count)
		lttng_ust_field_sequence_hex(unsigned short, sequence_hex, (const unsigned short *) bytes, unsigned char, count / 2)
		lttng_ust_field_sequence_network(unsigned short, sequence_network, (const unsigned short *) bytes, unsigned int, count / 2)
		lttng_ust_field_sequence_text(char, sequence_text, text, unsigned short, 2)
		lttng_ust_field_enum(all, colour, int, colour, 3)
		lttng_ust_field_enum(all, colour, unsigned char, colour_next, 5)
		lttng_ust_field_unused(number)
	)
)
LTTNG_UST_TRACEPOINT_LOGLEVEL(all, types, LTTNG_UST_TRACEPOINT_LOGLEVEL_WARNING)
LTTNG_UST_TRACEPOINT_MODEL_EMF_URI(all, types, "http://example.invalid/types")

LTTNG_UST_TRACEPOINT_EVENT_CLASS(all, pair,
	LTTNG_UST_TP_ARGS(int, a, int, b),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int, a, a)
		lttng_ust_field_integer(int, b, b)
	)
)
LTTNG_UST_TRACEPOINT_EVENT_INSTANCE(all, pair, all, sum, LTTNG_UST_TP_ARGS(int, a, int, b))
LTTNG_UST_TRACEPOINT_EVENT_INSTANCE(all, pair, all, difference, LTTNG_UST_TP_ARGS(int, a, int, b))

LTTNG_UST_TRACEPOINT_EVENT(all, empty, LTTNG_UST_TP_ARGS(), LTTNG_UST_TP_FIELDS())

LTTNG_UST_TRACEPOINT_EVENT(all, strings,
	LTTNG_UST_TP_ARGS(const char *, a, const char *, b),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_string(a, a)
		lttng_ust_field_string(b, b)
	)
)

#endif
#include <lttng/tracepoint-event.h>
