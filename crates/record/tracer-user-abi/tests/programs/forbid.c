/* A library whose constructor, the first of all, forbids rdtsc to the program. */
#include <sys/prctl.h>

__attribute__((constructor))
static void forbid(void)
{
	prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
}
