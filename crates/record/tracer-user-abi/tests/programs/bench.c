/*
 * Nanoseconds for each event: bench WHICH BATCHES [THREADS]
 *
 * WHICH: int, int_string (16 bytes), ints (four), off (disabled), empty (the loop alone), rdtsc.
 * Each batch has 20,000 events; min, median and p90 over the batches are printed, and the CPU time
 * for each event over all threads. Pinned and SCHED_FIFO when allowed. Works on LTTng-UST and on
 * Sillage alike; which events are recorded is up to the session.
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

static const char *which;
static int batches;
static pthread_barrier_t start;

struct result {
	double *ns;
	double cpu_ns;
	int number;
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

static void *run(void *argument)
{
	struct result *result = argument;
	struct sched_param priority = { .sched_priority = 1 };
	cpu_set_t cpus;
	double begin, cpu;
	int i;

	CPU_ZERO(&cpus);
	CPU_SET((sched_getcpu() + result->number) % (int) sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	sched_setaffinity(0, sizeof cpus, &cpus);
	if (getenv("BENCH_FIFO"))
		sched_setscheduler(0, SCHED_FIFO, &priority);
	batch();
	pthread_barrier_wait(&start);
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	for (i = 0; i < batches; i++) {
		begin = now(CLOCK_MONOTONIC);
		batch();
		result->ns[i] = (now(CLOCK_MONOTONIC) - begin) / BATCH;
	}
	result->cpu_ns = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[3]) : 1, i;
	struct result results[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	double *ns, cpu_ns = 0;

	if (argc < 3 || threads < 1 || threads > THREADS_MAX || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: bench int|int_string|ints|off|empty|rdtsc BATCHES [THREADS]\n");
		return 2;
	}
	which = argv[1];
	batches = atoi(argv[2]);
	ns = malloc(sizeof *ns * batches * threads);
	pthread_barrier_init(&start, NULL, threads);
	for (i = 0; i < threads; i++) {
		results[i] = (struct result) { ns + i * batches, 0, i };
		pthread_create(&ids[i], NULL, run, &results[i]);
	}
	for (i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		cpu_ns += results[i].cpu_ns;
	}
	qsort(ns, batches * threads, sizeof *ns, compare);
	printf("%-10s threads %d min %.2f median %.2f p90 %.2f cpu %.2f\n", which, threads, ns[0],
		ns[batches * threads / 2], ns[batches * threads * 9 / 10],
		cpu_ns / ((double) batches * threads * BATCH));
	return 0;
}
