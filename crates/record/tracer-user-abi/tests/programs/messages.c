/* tracef and tracelog, and a probe of the program's own. */
#include <lttng/tracef.h>
#include <lttng/tracelog.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int seen;

static void own_probe(void *data, const char *message, unsigned int length, void *ip)
{
	(void) ip;
	if (data == &seen && length == strlen("twice 2") && !memcmp(message, "twice 2", length))
		seen++;
}

static void through_list(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	lttng_ust_vtracef(format, list);
	va_end(list);
}

int main(void)
{
	static char large[70000];

	lttng_ust_tracef("plain");
	lttng_ust_tracef("%d %s %5.2f %c", -3, "text", 2.5, 'x');
	lttng_ust_tracef("%d %d %d %d %d %d %d %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f",
		1, 2, 3, 4, 5, 6, 7, 1., 2., 3., 4., 5., 6., 7., 8., 9.);
	through_list("%s %d", "list", 5);
	lttng_ust_tracelog(LTTNG_UST_TRACEPOINT_LOGLEVEL_INFO, "%s %d %.1f", "logged", 6, 7.5);
	memset(large, 'x', sizeof large - 1);
	lttng_ust_tracef("%s", large);

	lttng_ust_tracepoint_register_lttng_ust_tracef___event((char *) "lttng_ust_tracef", (char *) "event",
		(void (*)(void)) own_probe, &seen);
	lttng_ust_tracef("twice %d", 2);
	lttng_ust_tracepoint_unregister_lttng_ust_tracef___event((char *) "lttng_ust_tracef", (char *) "event",
		(void (*)(void)) own_probe, &seen);
	lttng_ust_tracef("twice %d", 2);
	printf("%d\n", seen);
	return 0;
}
