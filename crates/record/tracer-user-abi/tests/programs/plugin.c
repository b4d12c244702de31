/* A library with a provider, to be opened and closed at run time. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "plugin-tp.h"

void fire(int n)
{
	lttng_ust_tracepoint(plugin, fired, n);
}
