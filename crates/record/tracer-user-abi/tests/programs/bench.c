/*
 * Nanoseconds for each event: bench WHICH BATCHES [THREADS]
 *
 * WHICH: int, int_string (16 bytes), ints (four), off (disabled), empty (the loop alone), rdtsc.
 * Each batch has 20,000 events; min, median and p90 over the batches are printed, and the CPU time
 * for each event over all threads. Pinned and SCHED_FIFO when allowed. Works on LTTng-UST and on
 * Sillage alike; which events are recorded is up to the session.
 *
 * A virtual CPU often shares its core with a stranger, who can halve its speed. With BENCH_QUIET=NS, a
 * loop of known work, which takes NS at best, stands before and behind each batch, and batches that
 * ran while it was slow do not count: up to EXTRA times as many are run. "quiet" says how many of the
 * counted ones are good. WHICH known_work prints NS, the best of three seconds.
 */
#define _GNU_SOURCE
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "bench-tp.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <x86intrin.h>

#define BATCH 20000
#define THREADS_MAX 64
/* Batches that are run at most for each that is asked for. */
#define EXTRA 60
/* Slower than its best by more than this: the core is shared at the moment. */
#define TOLERANCE 1.12

static const char *which;
static int batches;
/* CPU of the first thread; the others follow on the next ones. */
static int first_cpu;
static pthread_barrier_t start;

struct result {
	double *ns;
	double cpu_ns;
	int number;
	int quiet;
};

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void batch(void)
{
	volatile unsigned long long sink;
	int i;

	if (!strcmp(which, "int"))
		for (i = 0; i < BATCH; i++)
			lttng_ust_tracepoint(bench, int, i);
	else if (!strcmp(which, "int_string"))
		for (i = 0; i < BATCH; i++)
			lttng_ust_tracepoint(bench, int_string, i, "fifteen letters");
	else if (!strcmp(which, "ints"))
		for (i = 0; i < BATCH; i++)
			lttng_ust_tracepoint(bench, ints, i, i + 1, i + 2, i + 3);
	else if (!strcmp(which, "off"))
		for (i = 0; i < BATCH; i++) {
			lttng_ust_tracepoint(bench, off, i);
			__asm__ volatile("" ::: "memory");
		}
	else if (!strcmp(which, "rdtsc"))
		for (i = 0; i < BATCH; i++)
			sink = __rdtsc();
	else
		for (i = 0; i < BATCH; i++)
			__asm__ volatile("" ::: "memory");
	(void) sink;
}

/* Nanoseconds of known work: as much at once as a core can do, about 20 us. */
static double known_work(void)
{
	double begin = now(CLOCK_MONOTONIC);
	int i;

	for (i = 0; i < 30000; i++)
		__asm__ volatile("add $1, %%rax; add $1, %%rcx; add $1, %%rdx; add $1, %%rsi; add $1, %%r8;"
				 "add $1, %%r9" ::: "rax", "rcx", "rdx", "rsi", "r8", "r9");
	return now(CLOCK_MONOTONIC) - begin;
}

static double best_known_work(void)
{
	double end = now(CLOCK_MONOTONIC) + 3e9, best = known_work(), ns;

	while (now(CLOCK_MONOTONIC) < end)
		if ((ns = known_work()) < best)
			best = ns;
	return best;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* Batches while the core is ours alone, as far as that can be had. */
static void run_quiet(struct result *result, double best)
{
	double before = known_work(), after, begin, ns, cpu;
	int tries, n = 0;

	for (tries = 0; tries < batches * EXTRA && n < batches; tries++) {
		cpu = now(CLOCK_THREAD_CPUTIME_ID);
		begin = now(CLOCK_MONOTONIC);
		batch();
		ns = now(CLOCK_MONOTONIC) - begin;
		cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
		after = known_work();
		/* What is missing at the end is taken as it comes. */
		if (before <= best * TOLERANCE && after <= best * TOLERANCE)
			result->quiet++;
		else if (batches * EXTRA - tries > batches - n) {
			before = after;
			continue;
		}
		before = after;
		result->ns[n++] = ns / BATCH;
		result->cpu_ns += cpu;
	}
}

static void *run(void *argument)
{
	struct result *result = argument;
	struct sched_param priority = { .sched_priority = 1 };
	cpu_set_t cpus;
	double begin, cpu;
	int i;

	CPU_ZERO(&cpus);
	CPU_SET((first_cpu + result->number) % (int) sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	sched_setaffinity(0, sizeof cpus, &cpus);
	if (getenv("BENCH_FIFO"))
		sched_setscheduler(0, SCHED_FIFO, &priority);
	batch();
	pthread_barrier_wait(&start);
	if (getenv("BENCH_QUIET")) {
		run_quiet(result, atof(getenv("BENCH_QUIET")));
		return NULL;
	}
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	for (i = 0; i < batches; i++) {
		begin = now(CLOCK_MONOTONIC);
		batch();
		result->ns[i] = (now(CLOCK_MONOTONIC) - begin) / BATCH;
	}
	result->cpu_ns = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[3]) : 1, i;
	struct result results[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	double *ns, cpu_ns = 0;
	int quiet = 0;

	if (argc < 3 || threads < 1 || threads > THREADS_MAX || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: bench int|int_string|ints|off|empty|rdtsc|known_work BATCHES [THREADS]\n");
		return 2;
	}
	which = argv[1];
	first_cpu = sched_getcpu();
	batches = atoi(argv[2]);
	if (!strcmp(which, "known_work")) {
		printf("known_work best %.0f\n", best_known_work());
		return 0;
	}
	ns = malloc(sizeof *ns * batches * threads);
	pthread_barrier_init(&start, NULL, threads);
	for (i = 0; i < threads; i++) {
		results[i] = (struct result) { ns + i * batches, 0, i, 0 };
		pthread_create(&ids[i], NULL, run, &results[i]);
	}
	for (i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		cpu_ns += results[i].cpu_ns;
		quiet += results[i].quiet;
	}
	qsort(ns, batches * threads, sizeof *ns, compare);
	printf("%-10s threads %d min %.2f median %.2f p90 %.2f cpu %.2f quiet %d of %d\n", which, threads, ns[0],
		ns[batches * threads / 2], ns[batches * threads * 9 / 10],
		cpu_ns / ((double) batches * threads * BATCH), quiet, batches * threads);
	return 0;
}
